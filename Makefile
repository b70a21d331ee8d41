# The two commands of a newcomer: make run, make test. Everything is installed into .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOW ?= conf/flow.yml
# Every version that these commands install, those of dependencies' dependencies as well; made by `make constraints`.
CONSTRAINTS := constraints.txt
GRPC_CLIENTS := .venv-grpc-clients
GRAPHQL_CLIENTS := .venv-graphql-clients
PIP := PIP_CONSTRAINT=$(abspath $(CONSTRAINTS)) PIP_BUILD_CONSTRAINT=$(abspath $(CONSTRAINTS)) $(BIN)/pip install --quiet
SOURCES := setup.py pyproject.toml $(shell find gatewayd/assets conf -type f) examples/search/executors.py \
	$(shell find gatewayd twisted -name '*.py' -o -name '*.pyi')

.PHONY: pictures run test test-quick test-docarray2 test-faults test-security security fuzz test-core test-ray test-redis test-interop test-openai test-kubernetes fuzz-grpc test-grpc-clients test-graphql-clients test-latest test-wstest constraints lint format types docs keywords proto proto-check assets bench bench-check bench-ray clean

run: $(VENV)/.installed  ## serve conf/flow.yml (or FLOW=...): all protocols, executors included
	@echo "Serving $(FLOW). The first curl of README.md, to try in another terminal:"
	@echo "  curl -s localhost:12346/index -H 'content-type: application/json' \\"
	@echo "    -d '{\"data\": [{\"id\": \"1\", \"text\": \"a red apple\"}, {\"id\": \"2\", \"text\": \"a green pear\"}]}'"
	@echo "  curl -s localhost:12346/search -H 'content-type: application/json' \\"
	@echo "    -d '{\"data\": [{\"text\": \"apples\"}], \"parameters\": {\"limit\": 1}}'"
	@$(BIN)/twistd -n --pidfile= gateway --config $(FLOW)

# The files of tests are shared out among so many processes; many of them wait most of the time.
TEST_WORKERS ?= 3

test: $(VENV)/.test  ## every test that needs nothing but Python
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile -m "not interop and not faults and not security and not grpc_clients and not graphql_clients and not openai and not kubernetes and not ray and not redis"

test-quick: $(VENV)/.test  ## what needs no processes and no thousands of cases: within a minute
	$(BIN)/python -m pytest -m "not interop and not faults and not security and not grpc_clients and not graphql_clients and not openai and not kubernetes and not ray and not redis and not slow"

test-faults: $(VENV)/.test  ## kill, stop and restart real executors while clients are at work
	$(BIN)/python -m pytest -m faults -s

test-security: $(VENV)/.test .venv-security/.installed  ## attack real gateways, and watch their memory and their other clients
	$(BIN)/python -m pytest -m security

security: $(VENV)/.test .venv-security/.installed  ## the same, and the figures of docs/security.md made anew
	$(BIN)/python -m tests.security

FUZZ_SECONDS ?= 600

fuzz: $(VENV)/.test  ## every parser against made-up input, for FUZZ_SECONDS (600) in all
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m tests.fuzz

.venv-security/.installed: tests/security/requirements.txt
	$(PYTHON) -m venv .venv-security
	.venv-security/bin/pip install --quiet -r tests/security/requirements.txt
	@touch $@

test-core: $(VENV)/.test  ## an installation without extras serves external executors: in a venv of its own
	rm -rf .venv-core build
	$(PYTHON) -m venv .venv-core
	$(subst $(BIN),.venv-core/bin,$(PIP)) .
	GATEWAYD_CORE_PYTHON=$(abspath .venv-core)/bin/python \
		$(BIN)/python -m pytest tests/service/test_without_docarray.py

test-ray: .venv-ray/.installed  ## executors on a Ray cluster of three nodes, all on this machine; in a venv of its own
	.venv-ray/bin/python -m pytest -m ray tests/ray

# Ray is 200 MB, and has dependencies of its own: not in the venv of all other tests.
.venv-ray/.installed: setup.py tests/ray/requirements.txt $(CONSTRAINTS)
	$(PYTHON) -m venv .venv-ray
	rm -rf build
	PIP_CONSTRAINT=$(abspath $(CONSTRAINTS)) .venv-ray/bin/pip install --quiet '.[test]' -r tests/ray/requirements.txt
	@touch $@

test-redis: $(VENV)/.test  ## rates that gateways share, in a real Redis (redis-server on the path)
	$(BIN)/python -m pytest -m redis tests/redis

test-docarray2: .venv-docarray2/.installed  ## executors and Clients with docarray 0.40 and later, in a venv of its own
	.venv-docarray2/bin/python -m pytest -m "not interop" tests/docarray2

fuzz-grpc: $(VENV)/.test  ## random conversations with the own gRPC server, and header blocks: an hour each (GATEWAYD_FUZZ_S=60)
	GATEWAYD_FUZZ_S=$${GATEWAYD_FUZZ_S:-3600} $(BIN)/python -m pytest -q tests/rpc/server/test_any_conversation.py tests/rpc/test_hpack.py

test-interop: $(VENV)/.test .venv-jina/.installed .venv-docarray2/.installed .venv-jina34/.installed  ## the real Jina, of both generations
	$(BIN)/python -m pytest -m interop
	.venv-docarray2/bin/python -m pytest -m interop tests/docarray2

test-openai: $(VENV)/.test .venv-openai/.installed .venv-docarray2/.installed  ## the real openai client, in a venv of its own
	$(BIN)/python -m pytest -m openai

test-kubernetes: $(VENV)/.test .venv-kubernetes/.installed  ## exports by the schemas of Kubernetes, and a linter of Dockerfiles
	$(BIN)/python -m pytest -m kubernetes

.venv-kubernetes/.installed: tests/kubernetes/requirements.txt
	$(PYTHON) -m venv .venv-kubernetes
	.venv-kubernetes/bin/pip install --quiet -r tests/kubernetes/requirements.txt
	@touch $@

.venv-openai/.installed: tests/openai_client/requirements.txt
	$(PYTHON) -m venv .venv-openai
	.venv-openai/bin/pip install --quiet -r tests/openai_client/requirements.txt
	@touch $@

test-grpc-clients: $(VENV)/.test $(GRPC_CLIENTS)/.installed  ## other libraries' gRPC clients, in several languages
	$(BIN)/python -m pytest -m grpc_clients tests/grpc_clients

test-graphql-clients: $(VENV)/.test $(GRAPHQL_CLIENTS)/.installed  ## other people's GraphQL clients, over WebSocket
	$(BIN)/python -m pytest -m graphql_clients tests/graphql_clients

# Autobahn|Testsuite was never ported to Python 3: it needs an interpreter of Python 2.7.
WSTEST_PYTHON ?= $(shell for each in python2.7 pypy2.7 pypy $(HOME)/.pyenv/versions/2.7.*/bin/python2.7; do \
	$$each -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null && echo $$each && break; done)
WSTEST_CASES ?= *

test-wstest: $(VENV)/.test  ## Autobahn's WebSocket test suite; some minutes (WSTEST_CASES='1.* 7.*' for a part)
	@if [ -z "$(WSTEST_PYTHON)" ]; then \
		echo "NOT RUN: the suite needs Python 2.7, and there is none here (WSTEST_PYTHON=/path/to/python2.7)"; \
	else \
		$(MAKE) --no-print-directory .venv-wstest/.installed && \
		$(BIN)/python -m tests.wstest .venv-wstest/py27/bin/wstest $(foreach case,$(WSTEST_CASES),'$(case)'); \
	fi

.venv-wstest/.installed:
	$(PYTHON) -m venv .venv-wstest/tools
	.venv-wstest/tools/bin/pip install --quiet virtualenv==20.21.1  # the last that knows Python 2.7
	.venv-wstest/tools/bin/virtualenv --quiet -p "$$(command -v $(WSTEST_PYTHON))" .venv-wstest/py27
	.venv-wstest/py27/bin/pip install --quiet autobahntestsuite==25.10.1
	@touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## gatewayd, and what its types are to those who use it: with types of their own, and without
	PYTHONPATH=. $(BIN)/python tools/keywords.py --check
	$(BIN)/mypy
	$(BIN)/mypy tools examples/typed
	$(BIN)/python -m pytest -q tests/test_types.py
	$(BIN)/mypy --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls examples

pictures: $(VENV)/.test  ## the pictures of the guide that show running gateways, made anew (needs Chromium)
	GATEWAYD_PICTURES=docs/images $(BIN)/python -m pytest -q tests/admin/test_dashboard.py -k picture

docs: $(VENV)/.docs  ## the documentation as a site, in site/; its links are checked
	$(BIN)/python docs/tools/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python docs/tools/check_site.py site

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.dev  ## regenerate gatewayd/pb from proto/
	$(BIN)/python proto/generate.py

keywords: $(VENV)/.installed  ## regenerate gatewayd/flow/keywords.py from gatewayd/config/keys.py
	PYTHONPATH=. $(BIN)/python tools/keywords.py

proto-check: $(VENV)/.dev  ## is gatewayd/pb what proto/ says?
	@scratch=$$(mktemp -d) && $(BIN)/python proto/generate.py $$scratch && \
	for file in $$scratch/*; do diff -u gatewayd/pb/$$(basename $$file) $$file || exit 1; done; rm -r $$scratch

assets:  ## fetch the documentation pages' scripts from npm again, as pinned in gatewayd/assets/fetch.py
	$(PYTHON) gatewayd/assets/fetch.py

bench: $(VENV)/.test .venv-jina/.installed  ## against the real Jina gateway, in the same run
	$(BIN)/python -m bench

bench-check: $(VENV)/.test .venv-jina/.installed  ## a short run: which ratios are worse than those of the last `make bench`?
	$(BIN)/python -m bench --check

bench-ray: .venv-ray/.installed  ## a call to an executor on Ray against one to a local executor, in the same run
	.venv-ray/bin/python -m bench.ray

# A scratch venv each, so that nothing but what setup.py's ranges (and the real Jina's pins) bring is written down.
constraints:  ## take up the newest versions that the ranges allow: writes constraints.txt and the interop tests' own
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	$(PYTHON) -m venv $$scratch/ours && $$scratch/ours/bin/pip install --quiet --upgrade pip setuptools wheel && \
	$$scratch/ours/bin/pip install --quiet '.[png,test,dev,docs]' && \
	$$scratch/ours/bin/python tests/versions.py freeze > $(CONSTRAINTS) && \
	$(PYTHON) -m venv $$scratch/jina && \
	$$scratch/jina/bin/pip install --quiet -r tests/interop/requirements.txt wheel setuptools && \
	$$scratch/jina/bin/python tests/versions.py freeze > tests/interop/constraints.txt

test-latest:  ## the tests with the newest of everything that setup.py's ranges allow
	rm -rf .venv-latest build
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/pip install --quiet --upgrade pip setuptools wheel
	.venv-latest/bin/pip install --quiet '.[png,test]'
	.venv-latest/bin/python -m pytest -m "not interop and not faults and not security and not grpc_clients and not graphql_clients and not openai and not kubernetes and not ray and not redis"; status=$$?; \
		.venv-latest/bin/python tests/versions.py compare $(CONSTRAINTS); exit $$status

# What there is no compiler or package manager for is left out; the tests name it.
$(GRPC_CLIENTS)/.installed: $(CONSTRAINTS) tests/grpc_clients/programs/go/main.go
	for release in oldest constraint newest; do $(PYTHON) -m venv $(GRPC_CLIENTS)/grpcio-$$release; done
	$(GRPC_CLIENTS)/grpcio-oldest/bin/pip install --quiet grpcio==1.57.0
	$(GRPC_CLIENTS)/grpcio-constraint/bin/pip install --quiet $$(grep '^grpcio==' $(CONSTRAINTS))
	$(GRPC_CLIENTS)/grpcio-newest/bin/pip install --quiet --upgrade grpcio
	$(PYTHON) -m venv $(GRPC_CLIENTS)/grpclib
	$(GRPC_CLIENTS)/grpclib/bin/pip install --quiet grpclib==0.4.9
	-npm install --silent --prefix $(GRPC_CLIENTS) @grpc/grpc-js
	-GO111MODULE=off GOPATH=/usr/share/gocode go build -o $(GRPC_CLIENTS)/grpc_go tests/grpc_clients/programs/go/main.go
	@touch $@

$(GRAPHQL_CLIENTS)/.installed: tests/graphql_clients/requirements.txt tests/graphql_clients/package.json
	$(PYTHON) -m venv $(GRAPHQL_CLIENTS)
	$(GRAPHQL_CLIENTS)/bin/pip install --quiet -r tests/graphql_clients/requirements.txt
	cp tests/graphql_clients/package.json $(GRAPHQL_CLIENTS)
	-npm install --silent --prefix $(GRAPHQL_CLIENTS)
	@touch $@

clean:
	rm -rf $(VENV) $(GRPC_CLIENTS) $(GRAPHQL_CLIENTS) .venv-core .venv-docarray2 .venv-jina .venv-jina34 .venv-latest .venv-kubernetes .venv-openai .venv-ray .venv-wstest .venv-security build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# What setuptools left in build/ would be installed again, modules that are gone included.
$(VENV)/.installed: $(SOURCES) $(CONSTRAINTS) | $(BIN)/python
	rm -rf build
	$(PIP) '.[executor,client]'
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) '.[test,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) '.[docs]'
	@touch $@

# The real Jina pins versions that nothing else wants, so it lives in a venv of its own.
.venv-jina/.installed: tests/interop/requirements.txt tests/interop/constraints.txt
	$(PYTHON) -m venv .venv-jina
	PIP_CONSTRAINT=$(abspath tests/interop/constraints.txt) \
		.venv-jina/bin/pip install --quiet -r tests/interop/requirements.txt wheel setuptools
	.venv-jina/bin/pip install --quiet --no-deps --no-build-isolation jina==3.14.1
	@touch $@

# docarray 0.41 cannot be installed beside 0.21, which constraints.txt has.
.venv-docarray2/.installed: setup.py tests/docarray2/requirements.txt $(CONSTRAINTS)
	$(PYTHON) -m venv .venv-docarray2
	grep -v '^docarray==' $(CONSTRAINTS) > .venv-docarray2/constraints.txt
	rm -rf build
	PIP_CONSTRAINT=$(abspath .venv-docarray2)/constraints.txt .venv-docarray2/bin/pip install --quiet \
		'.[docarray2,tracing]' -r tests/docarray2/requirements.txt
	@touch $@

# The second generation: Jina 3.34 and docarray 0.41, which cannot be installed beside the first.
.venv-jina34/.installed: tests/interop/requirements-34.txt
	$(PYTHON) -m venv .venv-jina34
	.venv-jina34/bin/pip install --quiet -r tests/interop/requirements-34.txt
	.venv-jina34/bin/pip install --quiet --no-deps --no-build-isolation jina==3.34.0
	@touch $@
