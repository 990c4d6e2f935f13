# Two commands do everything: `make figures` and `make test`.  Each makes .venv when there is none.  `make paper` runs the
# notebooks at the scale of the recorded numbers; `make book` binds those that `make figures` ran.
#   make paper MODEL=openai/clip-vit-base-patch32 DEVICE=cuda N_PAIRS=500   reaches the notebooks' parameters
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# glibc gives big blocks back to the system at each step; keeping them makes training twice as fast, M2IB a quarter.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456
PICTURES := scenes radiographs retrieval shortcuts shortcuts_plain snow snow_plain
TWINS := radiographs-biased radiographs-clean scenes-biased scenes-clean

.PHONY: figures paper book record test lab explore testbed clean

figures paper: $(VENV)/installed
	$(KEEP_MEMORY) $(BIN)/python notebooks/run.py $@ $(filter-out PYTHON=%,$(MAKEOVERRIDES))

book: $(VENV)/installed
	$(BIN)/python notebooks/run.py book

record: $(VENV)/installed
	for scale in figures paper; do \
	  $(KEEP_MEMORY) $(BIN)/python notebooks/run.py $$scale DEVICE=cpu; \
	  $(BIN)/python notebooks/run.py record $$scale || exit 1; \
	done  # a number that moved fails the run, and is what we want to record

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb
	$(KEEP_MEMORY) $(BIN)/pytest

lab: $(VENV)/installed
	$(BIN)/jupyter lab --notebook-dir=notebooks --ServerApp.tornado_settings="{'websocket_max_message_size': 200000000}"

explore: $(VENV)/installed
	cd notebooks && ../$(BIN)/voila explore.ipynb  # voila.json: for this machine alone

testbed: $(VENV)/installed
	$(BIN)/python data/testbed/sprites/make_sprites.py
	for kind in $(PICTURES); do $(BIN)/python data/testbed/draw.py $$kind; done
	$(KEEP_MEMORY) $(BIN)/python data/testbed/train.py
	$(KEEP_MEMORY) $(BIN)/python data/testbed/train.py radiographs
	$(BIN)/python data/testbed/tune.py
	$(BIN)/python data/testbed/tune.py radiographs
	for twin in $(TWINS); do $(KEEP_MEMORY) $(BIN)/python data/testbed/train.py $$twin; done
	$(KEEP_MEMORY) $(BIN)/python data/testbed/strengths.py
	$(KEEP_MEMORY) $(BIN)/python data/testbed/masking.py
	$(KEEP_MEMORY) $(BIN)/python data/testbed/word_audit.py
	cd data && shasum -a 256 testbed/sprites/sprites.* models/*/*.safetensors models/*/*.json > SHA256SUMS

clean:
	rm -rf $(VENV) build .hypothesis .pytest_cache .ruff_cache *.egg-info

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps clip-anytorch==2.6.0  # OpenAI's CLIP, to test against
	touch $@
