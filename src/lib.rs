//! Kernels, autotuner, presets and runtime for ternary language models on CPUs.
