"""What the processor that code is made for can do, as Numba says it: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES count."""

from numba.core.registry import cpu_target

_FEATURES = frozenset(cpu_target.target_context.codegen().magic_tuple()[2].split(","))

# Loads and stores of some of a vector's places: of any type and as fast as whole ones, or loads alone and of 32 and 64
# bits. (AVX2 has such stores, too: measured on a Zen 3, one takes as long as thirteen plain ones.)
MASKS = {"+avx512bw", "+avx512vl"} <= _FEATURES
MASKED_LOADS = MASKS or "+avx2" in _FEATURES
# Numbers looked up within 128 bits, each place its own: an instruction of AVX, what goes with it of AVX2.
PERMUTES = MASKED_LOADS
# Bits of a register, as far as it makes a difference here; there are 32 of the wide ones and 16 of the others.
REGISTER_BITS = 512 if MASKS else 256
# x86 without AVX-512: the constants of an exponential alone fill most of the registers.
FEW_REGISTERS = "+avx" in _FEATURES and not MASKS
