# The experiments behind docs/results.md. Each keeps its finished cells: run again, it goes on where it stopped.

.PHONY: experiments-voices experiments-speech experiments-head-to-head experiments-runtimes
.PHONY: experiments-full-size results

experiments-voices: $(READY)
	$(PY) -m bitvox.benchmarks.experiments.voices

experiments-speech: $(READY)
	$(PY) -m bitvox.benchmarks.experiments.real_speech

experiments-head-to-head: $(READY)
	$(PY) -m bitvox.benchmarks.experiments.head_to_head

experiments-runtimes: $(READY)
	$(PY) -m bitvox.benchmarks.experiments.runtimes

experiments-full-size: $(READY)
	$(PY) -m bitvox.benchmarks.experiments.full_size

results: experiments-voices experiments-speech experiments-runtimes experiments-full-size
	$(PY) -m bitvox.benchmarks.demo --out demo --record benchmarks/results/demo.json
	$(PY) -m bitvox.benchmarks.experiments.report
	$(PY) -m bitvox.benchmarks.experiments.readme
