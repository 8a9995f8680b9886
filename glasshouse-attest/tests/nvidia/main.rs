//! NVIDIA's verifier against the shared corpus of real evidence, against every change of it, and against evidence
//! under roots of its own.

mod cases;
mod corpus;
