# The doors of this repository. `make help` lists them.
#
# Needed: Debian 12 or 13, root, and a Rust toolchain by rustup (rust-toolchain.toml names its version).
# What is built or fetched once lies in ~/.cache/holdfast (or HOLDFAST_CACHE) and is kept.

.DEFAULT_GOAL := help
.PHONY: help demo demo-ssh demo-env demo-status demo-down test test-long check generate bench image provider-mirror deb

# rustup puts cargo there; a root shell often does not search it.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# The virtual machine that `make demo-ssh` enters.
VM ?= web

help: ## Print this list.
	@printf 'Holdfast: virtual machines at the edge, driven through Kubernetes.\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: ## Bring up a site on this machine and run examples/vm.yaml on it (root; says first what it will do).
	@tests/doors/demo.sh up

demo-ssh: ## Log in to the demo's virtual machine; VM=name for another.
	@tests/doors/demo.sh ssh $(VM)

demo-env: ## Print the shell lines that make kubectl, terraform and tofu speak to the demo; for eval.
	@tests/doors/demo.sh env

demo-status: ## Say whether the demo is up and what is in it.
	@tests/doors/demo.sh status

demo-down: ## Take the demo down and remove all it created; packages and caches stay.
	@tests/doors/demo.sh down

test: ## Install packages, build peers and images, run every test and story (root; within 60 minutes).
	@tests/doors/test.sh

test-long: ## The same with many more random histories (PROPTEST_CASES) and kills (HOLDFAST_LONG).
	@tests/doors/test.sh --long

check: ## Format, lints, licences, crates alone, generated files, documents.
	@tests/doors/check.sh

generate: ## Write the generated files anew: api/crds, deploy/install.yaml, terraform-provider/docs.
	@tests/doors/generate.sh

bench: ## Print the measured figures against their limits.
	@tests/doors/bench.sh

image: ## Build the controller's image as an OCI layout in target/image, without a container engine.
	@deploy/image/build.sh

provider-mirror: ## Pack the Terraform provider: target/provider-mirror to install from, target/provider-release to publish.
	@tests/doors/mirror.sh

deb: ## Build the Debian package of the node daemon in target/deb.
	@deploy/deb/build.sh
