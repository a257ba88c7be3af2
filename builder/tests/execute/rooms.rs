crate::harness::tests!();
