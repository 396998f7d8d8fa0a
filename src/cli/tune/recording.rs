//! `trilut tune --record`: tables of every candidate's times.

use super::super::failure::Failure;
use super::super::interrupt;
use super::super::output::{self, outln, say};
use super::super::progress::Bar;
use std::path::Path;
use trilut_tuning::{Hardware, Request, table};

/// Samples that a table keeps of each candidate.
const KEPT: usize = 9;

pub(super) fn record(request: &Request, directory: &Path, rounds: usize) -> Result<(), Failure> {
    for &layer in &request.shapes {
        let name = format!("{}-{}-t{}.txt", layer.phase, layer.shape, request.threads);
        let path = directory.join(name);
        output::check_file(&path)?;
        let mut lab = Hardware::new(request);
        let mut bar = Bar::new();
        let table = table::record(&mut lab, request, layer, rounds, KEPT, &mut bar)?;
        drop(bar);
        let Some(table) = table else {
            say!("interrupted: {layer} is not recorded");
            return Err(Failure::interrupted());
        };
        std::fs::write(&path, table.to_text()).map_err(|error| {
            Failure::from(error).context(format!("cannot write {}", path.display()))
        })?;
        outln!("{}: {}", path.display(), output::count(table.points(), "point"));
        if interrupt::asked() {
            return Err(Failure::interrupted());
        }
    }
    Ok(())
}
