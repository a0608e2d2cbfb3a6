# The experiments behind docs/results.md. Each keeps its finished cells: run again, it goes on where it stopped.

BITVOX := $(VENV)/bin/bitvox

.PHONY: experiments-voices experiments-speech experiments-head-to-head experiments-runtimes
.PHONY: experiments-full-size experiments-keywords experiments-languages results

experiments-voices: $(READY)
	$(BITVOX) reproduce voices

experiments-speech: $(READY)
	$(BITVOX) reproduce real-speech

experiments-head-to-head: $(READY)
	$(BITVOX) reproduce head-to-head

experiments-runtimes: $(READY)
	$(BITVOX) reproduce runtimes

experiments-full-size: $(READY)
	$(BITVOX) reproduce full-size

experiments-keywords: $(READY)
	$(BITVOX) reproduce keywords

experiments-languages: $(READY) reference-languages
	$(BITVOX) reproduce languages

results: experiments-voices experiments-speech experiments-runtimes experiments-full-size
	$(PY) -m bitvox.benchmarks.demo --out demo --record benchmarks/results/demo.json
	$(PY) -m bitvox.benchmarks.experiments.report
	$(PY) -m bitvox.benchmarks.experiments.readme
