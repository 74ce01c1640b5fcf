"""What asv measures over the project's history: thin classes over softmax_numba.bench, which describes everything once.

Ratios to peers and to the copy are measured in interleaved rounds within one process, which is what lasts on a shared
machine; times are asv's own. With ``SOFTMAX_NUMBA_ASV_SECONDS`` fewer ratios get so many seconds in all (else 120), and
everything else one repetition: to see that all benchmarks run, not what they measure.
"""
