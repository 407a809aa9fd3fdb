//! `cvae backends`: what models can run on.

use anyhow::Result;
use cvae::registry;
use serde::Serialize;

use crate::args::BackendsArgs;
use crate::output;

#[derive(Serialize)]
struct Listing {
    backends: Vec<registry::BackendStatus>,
}

/// Lists every backend with its device, or the reason why it cannot be used.
///
/// # Errors
/// A standard output that cannot be written to.
pub(crate) fn run(args: &BackendsArgs) -> Result<()> {
    let backends = registry::list(registry::default_threads());
    if args.json {
        return output::json(&Listing { backends });
    }
    let line = |status: registry::BackendStatus| {
        let state = if status.available { "available" } else { "unavailable" };
        (status.id.to_owned(), format!("{state}: {}", status.detail))
    };
    output::table(&backends.into_iter().map(line).collect::<Vec<_>>())
}
