//! The one entry for chores: `cargo xtask --help` lists them.

mod bench;
mod ci;
mod dashboards;
mod dist;
mod docs;
mod ebpf;
mod fixtures;
mod fuzz;
mod kernels;
mod run;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the distwatch repository")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every check, cheapest first; the same here and in CI
    Ci(ci::Arguments),
    /// Runs all tests, and says loudly which were skipped for lack of a tool
    Test(test::Arguments),
    /// Installs the tools that tests and checks need (Debian packages, crates); only what is missing
    Setup(setup::Arguments),
    /// Checks what the compiler does not: module docs, who imports whom, file lengths
    Tidy,
    /// Writes the generated files anew: rules, schemas, the README's sample
    Docs(docs::Arguments),
    /// Checks the dashboards against Grafana's types, and every query against its grammar
    Dashboards(dashboards::Arguments),
    /// Writes the checksums of the captures in tests/captures, or checks them
    Fixtures(fixtures::Arguments),
    /// Runs the fuzz targets
    Fuzz(fuzz::Arguments),
    /// Builds the programs for the kernel, or checks that the committed ones are current
    Ebpf(ebpf::Arguments),
    /// Tries the programs on the kernels of Debian's releases, in virtual machines
    Kernels(kernels::Arguments),
    /// Makes the packages: Debian, RPM, container, Kubernetes
    Dist(dist::Arguments),
    /// Measures speed and memory against the field's own tools
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Ci(arguments) => ci::run(&arguments),
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Setup(arguments) => setup::run(&arguments),
        Chore::Tidy => tidy::run(),
        Chore::Docs(arguments) => docs::run(&arguments),
        Chore::Dashboards(arguments) => dashboards::run(&arguments),
        Chore::Fixtures(arguments) => fixtures::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Ebpf(arguments) => ebpf::run(&arguments),
        Chore::Kernels(arguments) => kernels::run(&arguments),
        Chore::Dist(arguments) => dist::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
