# The commands of the project.  Each runs on Debian 13 or newer as it is; on any other Linux .ci/debian13 makes a Debian 13
# root and runs it in there.  The build itself is meson's.
on = @.ci/debian13

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

deps: ## install the packages that building and testing need
	$(on) build,test true
build: ## build/raftd/raftd, build/ext/librqvfs.so
	$(on) build .ci/build
demo: ## from nothing to a database on three nodes, each step shown
	$(on) build sh -c '.ci/build && examples/demo.sh'
test: ## build, run every test, end with "N passed, N failed"
	$(on) build,test .ci/test
bench: ## measure against native SQLite (takes minutes; needs a quiet machine)
	$(on) build .ci/bench
soak: ## the long tests; RQ_SECONDS=600 is how long each runs
	$(on) build,test .ci/soak
check-style: ## clang-format and clang-tidy
	$(on) build,check .ci/check-style
format: ## clang-format, in place
	$(on) build,check .ci/check-style --fix
sanitize: ## all suites under asan+ubsan and tsan, many under valgrind (half an hour)
	$(on) build,test,check .ci/sanitize

.PHONY: help deps build demo test bench soak check-style format sanitize
