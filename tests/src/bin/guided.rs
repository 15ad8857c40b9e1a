//! libFuzzer around the parser that `FUZZ_PARSER` names: it changes bytes, and goes on from
//! those that led somewhere new. `tools/fuzz` compiles this with the counters for that.

#![no_main]

use std::sync::LazyLock;

use cairn_tests::CountedHeap;
use cairn_tests::fuzz::Target;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static HEAP: CountedHeap = CountedHeap;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_PARSER").expect("FUZZ_PARSER names a parser");
    Target::named(&name).expect("FUZZ_PARSER names a parser")
});

fuzz_target!(|bytes: &[u8]| TARGET.check(bytes));
