# Each verb prepares what it needs, and only what has changed since. ARGS go on to the program:
#   make run ARGS="--port 9000 --data /some/dir"
PYTHON ?= python3
do = @exec $(PYTHON) -E tests/setup/make.py
.PHONY: run test check fix setup fuzz bench load faults

run:   ; $(do) run $(ARGS)  # the server from this checkout, on http://127.0.0.1:8000
test:  ; $(do) test  # everything: lint, types, Python, TypeScript, bundle, browser
check: ; $(do) check  # the part of it that takes seconds
fix:   ; $(do) fix  # format, and what the linters can mend
setup: ; $(do) setup  # what `test` needs, without running it
fuzz:  ; $(do) fuzz $(ARGS)  # mutated updates through the guard into native code
bench: ; $(do) bench $(ARGS)  # us and our peers on this machine, for BENCHMARKS.md
load:  ; $(do) load $(ARGS)  # many users at once for 20 seconds, every room the same at the end
faults: ; $(do) faults $(ARGS)  # everything broken on purpose, with many seeds, for FAULTS.md
