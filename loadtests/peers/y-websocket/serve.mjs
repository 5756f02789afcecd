// @y/websocket-server at its defaults on the port named by the first argument; it says so when it listens.
process.env.HOST = '127.0.0.1'
process.env.PORT = process.argv[2]
await import('@y/websocket-server/server')
