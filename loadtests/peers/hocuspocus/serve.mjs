// Hocuspocus at its defaults on the port named by the first argument; says so when it listens.
import { Server } from '@hocuspocus/server'

const port = Number(process.argv[2])
await new Server({ address: '127.0.0.1', port, quiet: true }).listen()
console.log(`listening on ${port}`)
