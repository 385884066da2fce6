.PHONY: stubs
stubs:
	scripts/stubs
