# As an ordinary user, each of these works here, with Python's packages in .venv. As root, on a machine to test on, it
# first prepares the machine (Debian), and then does the same in a copy of this tree as the account rootless-test.
#
#   make demo       a few commands that show what rootless is; no registry, no image
#   make test       all tests but the virtual machine's
#   make test-vm    the tests that need systemd and control groups, in a virtual machine made for them
#   make bench      measure against podman
#   make venv       only make .venv
#
# ARGS='…' goes to pytest, or names the measurements to make.

TARGETS := demo test test-vm bench venv
ARGS ?=
export ARGS

.PHONY: $(TARGETS)

ifeq ($(shell id -u),0)

$(TARGETS):
	@tests/setup/prepare $@
	@python3 tests/setup/as_account.py make --no-print-directory $@

else

venv:
	@tests/setup/missing
	@tests/setup/venv

demo: venv
	@tests/setup/demo

test: venv
	@.venv/bin/python -m pytest $(ARGS)

bench: venv
	@.venv/bin/python -m tests.bench $(ARGS)

test-vm: venv
	@.venv/bin/python -m tests.vm.run $(ARGS)

endif
