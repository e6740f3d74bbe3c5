//! `setup`: installs what tests and checks need and the machine lacks.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::run::{cargo, repository, run as run_program, which};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only say what is missing; fails when something is
    #[arg(long)]
    check: bool,
}

/// Something that tests run.
pub(crate) struct Tool {
    /// What must exist: a program, or a path.
    pub(crate) needs: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// What cannot be tested without it.
    pub(crate) without: &'static str,
}

/// In the order in which they are installed. What the build needs comes first.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { needs: "cc", package: "gcc", without: "nothing can be linked" },
    Tool { needs: "/usr/include/pcap/pcap.h", package: "libpcap-dev", without: "live capture cannot be linked" },
    Tool { needs: "c++", package: "g++", without: "the fuzz targets cannot be built" },
    Tool { needs: "erl", package: "erlang-base", without: "no live node can be started" },
    Tool { needs: "epmd", package: "erlang-base", without: "no live EPMD can be asked" },
    Tool { needs: "/usr/lib/erlang/lib", package: "erlang-ssl", without: "no distribution over TLS can be started" },
    Tool { needs: "erl_call", package: "erlang-dev", without: "no C node can be tried" },
    Tool { needs: "elixir", package: "elixir", without: "no remote IEx shell can be opened" },
    Tool { needs: "tcpdump", package: "tcpdump", without: "live traffic cannot be recorded" },
    Tool { needs: "tshark", package: "tshark", without: "captures cannot be compared with a second decoder" },
    Tool { needs: "ip", package: "iproute2", without: "no network namespace can be made" },
    Tool { needs: "ethtool", package: "ethtool", without: "segmentation offload cannot be turned off" },
    Tool { needs: "/usr/bin/rustc", package: "rustc-web", without: "the kernel's programs cannot be built" },
    Tool { needs: "/usr/bin/cargo", package: "cargo-web", without: "the kernel's programs cannot be built" },
    Tool {
        needs: "/usr/lib/rustlib/src/rust/library/core",
        package: "rust-web-src",
        without: "the kernel's programs cannot be built",
    },
    Tool { needs: "/usr/lib/llvm-22/lib/libLLVMBPFCodeGen.a", package: "llvm-22-dev", without: NO_LINKER },
    Tool { needs: "/usr/lib/llvm-22/lib/libPolly.a", package: "libpolly-22-dev", without: NO_LINKER },
    Tool { needs: "/usr/include/zstd.h", package: "libzstd-dev", without: NO_LINKER },
    Tool { needs: "qemu-system-x86_64", package: "qemu-system-x86", without: NO_KERNELS },
    Tool { needs: "busybox", package: "busybox-static", without: NO_KERNELS },
    Tool { needs: "cpio", package: "cpio", without: NO_KERNELS },
    Tool { needs: "xz", package: "xz-utils", without: NO_KERNELS },
    Tool { needs: "systemd-analyze", package: "systemd", without: "the unit file cannot be checked" },
    Tool { needs: "nsenter", package: "util-linux", without: "nothing can be started on a host of the tests" },
    Tool { needs: "script", package: "bsdutils", without: "no remote shell can be opened" },
    Tool {
        needs: "bpftool",
        package: "bpftool",
        without: "what a killed daemon leaves in the kernel is not looked at",
    },
    Tool { needs: "chromium", package: "chromium", without: "the page cannot be looked at" },
    Tool { needs: "openssl", package: "openssl", without: "no certificates can be made" },
    Tool {
        needs: "prometheus-alertmanager",
        package: "prometheus-alertmanager",
        without: "alerts cannot be sent to a real Alertmanager",
    },
    Tool { needs: "promtool", package: "prometheus", without: "metrics and rules are not read by Prometheus itself" },
    Tool { needs: "node", package: "nodejs", without: NO_GRAMMARS },
    Tool { needs: "npm", package: "npm", without: NO_GRAMMARS },
    Tool { needs: "nats-server", package: "nats-server", without: "records cannot be sent to a real stream" },
    Tool { needs: "rsyslogd", package: "rsyslog", without: "records cannot be sent to a real syslog server" },
    Tool {
        needs: "/usr/share/doc/rsyslog-openssl",
        package: "rsyslog-openssl",
        without: "records cannot be sent to a syslog server over TLS",
    },
    Tool { needs: "/lib/systemd/systemd-journald", package: "systemd", without: "no journal can be started" },
    Tool { needs: "pip3", package: "python3-pip", without: "no OTLP collector can be installed" },
];

/// A program that crates.io has the source of, and Debian 12 no package.
struct Crate {
    name: &'static str,
    /// What `cargo install` is told besides.
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    without: &'static str,
}

/// What checks need besides [`TOOLS`], and no test.
const CRATES: &[Crate] = &[
    Crate {
        name: "bpf-linker",
        arguments: &["--no-default-features", "--features", "llvm-22"],
        environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
        without: "the kernel's programs cannot be built",
    },
    Crate { name: "cargo-fuzz", arguments: &[], environment: &[], without: "the fuzz targets cannot be built" },
    Crate {
        name: "cargo-deny",
        arguments: &[],
        // Its compilation is the long part, and it runs for a second.
        environment: &[
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ],
        without: "licences of dependencies are not looked at",
    },
];

impl Crate {
    /// Also a toolchain of the distribution can have brought it.
    fn is_present(&self) -> bool {
        which(self.name).is_some() || self.name.strip_prefix("cargo-").is_some_and(cargo_has)
    }
}

const NO_LINKER: &str = "bpf-linker, which links the kernel's programs, cannot be built";
const NO_GRAMMARS: &str = "the dashboards' types and queries cannot be checked";
const NO_KERNELS: &str = "the kernels of Debian's releases cannot be tried";

/// An OTLP collector, from PyPI, for the tests alone.
const COLLECTOR: &str = "target/tools/rotel/rotel-agent";

/// The tools that this machine lacks.
pub(crate) fn missing() -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !is_present(tool)).collect()
}

fn is_present(tool: &Tool) -> bool {
    match tool.package {
        // An Erlang library has a version in its folder's name.
        "erlang-ssl" => std::fs::read_dir(tool.needs).is_ok_and(|mut folders| {
            folders.any(|folder| folder.is_ok_and(|folder| folder.file_name().to_string_lossy().starts_with("ssl-")))
        }),
        _ if tool.needs.starts_with('/') => Path::new(tool.needs).exists(),
        _ => which(tool.needs).is_some(),
    }
}

/// Everything, for tests and for checks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check {
        return check();
    }
    for_tests()?;
    for_checks()
}

fn check() -> anyhow::Result<()> {
    let tools = missing();
    tools.iter().for_each(|tool| eprintln!("missing: {} ({}): {}", tool.needs, tool.package, tool.without));
    let crates: Vec<&Crate> = CRATES.iter().filter(|program| !program.is_present()).collect();
    crates.iter().for_each(|program| eprintln!("missing: {} (from crates.io): {}", program.name, program.without));
    let no_collector = !repository().join(COLLECTOR).exists();
    if no_collector {
        eprintln!("missing: {COLLECTOR} (rotel, from PyPI): records cannot be sent to a real OTLP collector");
    }
    if !tools.is_empty() || !crates.is_empty() || no_collector {
        bail!("not everything that tests and checks need is here: `cargo xtask setup` installs it");
    }
    Ok(())
}

/// Installs what tests run.
pub(crate) fn for_tests() -> anyhow::Result<()> {
    let mut packages: Vec<&str> = missing().iter().map(|tool| tool.package).collect();
    packages.dedup();
    if !packages.is_empty() {
        run_program(&mut as_root("apt-get", &["update", "-q"]))?;
        let install = ["install", "-qy", "--no-install-recommends"];
        run_program(
            as_root("apt-get", &[&install, packages.as_slice()].concat()).env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    if !repository().join(COLLECTOR).exists() {
        let folder = repository().join("target/tools");
        run_program(Command::new("pip3").args(["install", "-q", "rotel", "--target"]).arg(folder))?;
    }
    eprintln!("setup: everything that tests need is here");
    Ok(())
}

/// Installs what other checks run besides.
pub(crate) fn for_checks() -> anyhow::Result<()> {
    for component in ["rustfmt", "clippy"] {
        // Without rustup the toolchain is the distribution's, and so are its components.
        if which("rustup").is_some() && !cargo_has(component) {
            run_program(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    for program in CRATES.iter().filter(|program| !program.is_present()) {
        let mut install = cargo(&["install", "--locked", program.name]);
        run_program(install.args(program.arguments).envs(program.environment.iter().copied()))?;
    }
    eprintln!("setup: everything that checks need is here");
    Ok(())
}

/// The program itself for root, through sudo for anybody else.
fn as_root(program: &str, arguments: &[&str]) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let mut command = Command::new(if root { program } else { "sudo" });
    if !root {
        // sudo drops the environment, and apt-get must not ask.
        command.args(["DEBIAN_FRONTEND=noninteractive", program]);
    }
    command.args(arguments);
    command
}

pub(crate) fn cargo_has(component: &str) -> bool {
    let subcommand = if component == "rustfmt" { "fmt" } else { component };
    cargo(&[subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
}
