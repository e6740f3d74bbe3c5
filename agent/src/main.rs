//! The `distwatch` program.

use distwatch::cmd::{self, Exit};
use distwatch::{cli, logging};

fn main() -> Exit {
    let cli = cli::read();
    logging::start(&cli.globals);
    let color = cli.globals.color_stderr();
    cmd::conclude(cmd::run(cli), color)
}
