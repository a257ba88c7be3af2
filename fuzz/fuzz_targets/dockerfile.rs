//! The parser of Dockerfiles, and of ONBUILD triggers: nothing panics, everything can be shown.
#![no_main]

use boatyard_builder::dockerfile::{directive, parse_bytes, parse_trigger, render, render_step};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match parse_bytes(data) {
        Ok(dockerfile) => {
            assert!(!dockerfile.stages.is_empty());
            for warning in &dockerfile.warnings {
                render(&dockerfile.source, "Dockerfile", &warning.diagnostic());
                render_step(&dockerfile.source, "Dockerfile", &warning.diagnostic());
            }
            for instruction in dockerfile.stages.iter().flat_map(|stage| &stage.instructions) {
                assert!(dockerfile.source.slice(instruction.span).is_some());
            }
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            errors.render("Dockerfile");
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        directive::detect_syntax(text);
        let _ = parse_trigger(text);
    }
});
