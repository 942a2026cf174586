//! The oracle: a rollup's SELECT in batch, over all points at once.

pub(crate) use tidemark_tests::oracle::run;
