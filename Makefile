.PHONY: install demo test soak coverage check bench lock clean

install: ## set up .venv
	@scripts/install

demo: install ## run the examples through the broker and show verdict, receipt and journal
	@.venv/bin/remit demo

test: install ## run every check and test
	@scripts/test

soak: install ## run the tests that take minutes: races of 100,000 tries
	@scripts/test -m soak

coverage: install ## run every test and show which branches none of them takes
	@scripts/coverage

check: install ## format, lint, types, architecture
	@scripts/check

bench: install ## measure, beside the bare operations of the same run
	@.venv/bin/python benchmarks/run.py $(ARGS)

lock: ## pin the development dependencies anew
	@scripts/lock

clean: ## remove what install and test made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
