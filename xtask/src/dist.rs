//! `dist`: makes the packages in `target/dist`, has them looked at by the distributions' own linters, and says what could not be made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::run::{cargo, repository, run as run_program, which};
use crate::setup::{HADOLINT, KUBERNETES_VALIDATE, is_root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fail where a tool is missing, instead of making less
    #[arg(long)]
    strict: bool,
    /// Take target/release/distwatch as it is, where it fits
    #[arg(long)]
    no_build: bool,
    /// Also install, start, upgrade, remove and purge the Debian package in a fresh Debian; it takes root and debootstrap
    #[arg(long)]
    try_debian: bool,
    /// Make and try what CI does, and no more: what takes no other build of the program than the one that tests have made
    #[arg(long, conflicts_with_all = ["no_build", "try_debian"])]
    check: bool,
}

/// A package, and what makes it.
struct Product {
    name: &'static str,
    /// It is made as a check too: that takes no other build of the program than the one that is there.
    checked: bool,
    /// Programs without which it cannot be made or checked, with where they come from.
    tools: &'static [(&'static str, &'static str)],
    /// Makes it; or says what kept it from being made, although nothing is wrong.
    make: fn(&Path) -> anyhow::Result<Option<&'static str>>,
}

const SETUP: &str = "cargo xtask setup";

const PRODUCTS: &[Product] = &[
    Product {
        name: "the Debian package",
        checked: true,
        tools: &[("cargo-deb", SETUP), ("dpkg-shlibdeps", SETUP), ("lintian", SETUP)],
        make: debian,
    },
    Product {
        name: "the RPM package",
        checked: false,
        tools: &[
            ("cargo-generate-rpm", "cargo install --locked cargo-generate-rpm"),
            ("rpmlint", "apt-get install rpm rpmlint"),
        ],
        make: rpm,
    },
    Product {
        name: "the manifest for Kubernetes",
        checked: true,
        tools: &[("kubectl", SETUP), ("kubernetes-validate", SETUP)],
        make: kubernetes,
    },
    Product { name: "the container's image", checked: true, tools: &[("hadolint", SETUP)], make: container },
];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.check {
        return check(arguments.strict);
    }
    if !arguments.no_build {
        build()?;
    }
    let not_made = make(PRODUCTS.iter())?;
    if arguments.try_debian {
        try_debian()?;
    }
    if arguments.strict && not_made > 0 {
        bail!("not everything could be made");
    }
    Ok(())
}

/// Makes what takes no other build of the program than the one that tests have made, and tries it where this is root's machine.
pub(crate) fn check(strict: bool) -> anyhow::Result<()> {
    build()?;
    let checked = || PRODUCTS.iter().filter(|product| product.checked);
    make(checked())?;
    let lacks = checked().flat_map(|product| product.tools).any(|(program, _)| !is_there(program));
    let can_try = is_root() && is_there("debootstrap") && is_there("cargo-deb");
    if strict && (lacks || !can_try) {
        bail!("packages are made, looked at and tried by root, with what `cargo xtask setup` installs");
    }
    if can_try {
        return try_debian();
    }
    eprintln!(
        "*** NOT TRIED: the Debian package is installed, started, upgraded and removed by root, in what debootstrap makes"
    );
    Ok(())
}

fn build() -> anyhow::Result<()> {
    run_program(&mut cargo(&["build", "--locked", "--release", "--package", "distwatch"]))
}

fn folder() -> PathBuf {
    repository().join("target/dist")
}

fn try_debian() -> anyhow::Result<()> {
    eprintln!("\n--- the Debian package, tried");
    run_program(Command::new(repository().join("packaging/deb/try.sh")).arg(the_one(&folder(), "deb")?))
}

/// Makes them as far as that can be done here; says what could not be made, and returns how many that is.
fn make<'a>(products: impl Iterator<Item = &'a Product>) -> anyhow::Result<usize> {
    let folder = folder();
    prepare(&folder)?;
    let (mut made, mut not_made) = (Vec::new(), Vec::new());
    for product in products {
        eprintln!("\n--- {}", product.name);
        let missing: Vec<String> = product
            .tools
            .iter()
            .filter(|(program, _)| !is_there(program))
            .map(|(program, source)| format!("{program} is missing ({source})"))
            .collect();
        if !missing.is_empty() {
            not_made.push(format!("{}: {}", product.name, missing.join(", ")));
            continue;
        }
        match (product.make)(&folder).with_context(|| format!("{} could not be made", product.name))? {
            Some(obstacle) => not_made.push(format!("{}: {obstacle}", product.name)),
            None => made.push(product.name),
        }
    }
    eprintln!("\nmade in {}: {}", folder.display(), made.join(", "));
    for product in &not_made {
        eprintln!("*** NOT MADE: {product}");
    }
    Ok(not_made.len())
}

fn is_there(program: &str) -> bool {
    which(program).is_some() || of_python(program).is_some()
}

/// A program that `setup` has taken from PyPI.
fn of_python(program: &str) -> Option<Command> {
    [HADOLINT, KUBERNETES_VALIDATE].iter().find(|one| one.program.ends_with(program))?.command()
}

fn command(program: &str) -> Command {
    of_python(program).unwrap_or_else(|| Command::new(program))
}

/// What packages take besides the program and files of the repository: manual pages and completions.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    let program = repository().join("target/release/distwatch");
    if !program.is_file() {
        bail!("{} is not there: leave out --no-build", program.display());
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&completions)?;
    run_program(Command::new(&program).args(["man", "--dir"]).arg(&man))?;
    let pages: Vec<PathBuf> = fs::read_dir(&man)?.map(|page| Ok(page?.path())).collect::<std::io::Result<_>>()?;
    // -n: without the time, the same page is the same file.
    run_program(Command::new("gzip").arg("-9nk").args(pages))?;
    for (shell, file) in [("bash", "distwatch.bash"), ("zsh", "_distwatch"), ("fish", "distwatch.fish")] {
        let output = Command::new(&program).args(["completions", shell]).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("`distwatch completions {shell}` failed: {}", output.status);
        }
        fs::write(completions.join(file), output.stdout)?;
    }
    Ok(())
}

fn debian(folder: &Path) -> anyhow::Result<Option<&'static str>> {
    run_program(cargo(&["deb", "--package", "distwatch", "--no-build", "--strip", "--output"]).arg(folder))?;
    run_program(Command::new("lintian").args(["--fail-on", "error"]).arg(the_one(folder, "deb")?))?;
    Ok(None)
}

/// RPM distributions call libpcap otherwise than Debian. With Debian's name in it the package could not be installed there, so
/// that the program is one without: it captures by eBPF alone.
const DEBIAN_LIBPCAP: &str = "libpcap.so.0.8";

fn rpm(folder: &Path) -> anyhow::Result<Option<&'static str>> {
    let program = repository().join("target/release/distwatch");
    let needed = Command::new("objdump").arg("-p").arg(&program).output().context("cannot start objdump")?;
    let of_debian = String::from_utf8_lossy(&needed.stdout).contains(DEBIAN_LIBPCAP);
    let build = ["build", "--locked", "--release", "--package", "distwatch"];
    if of_debian {
        run_program(cargo(&build).arg("--no-default-features"))?;
    }
    run_program(Command::new("strip").arg("-o").args([&folder.join("distwatch"), &program]))?;
    if of_debian {
        // Nobody is to find the other one there; it is built already.
        run_program(&mut cargo(&build))?;
    }
    run_program(cargo(&["generate-rpm", "--package", "agent", "--output"]).arg(folder))?;
    let settings = repository().join("packaging/rpm/rpmlint.toml");
    run_program(Command::new("rpmlint").arg("--config").arg(settings).arg(the_one(folder, "rpm")?))?;
    Ok(None)
}

fn kubernetes(folder: &Path) -> anyhow::Result<Option<&'static str>> {
    let manifest = folder.join("distwatch-kubernetes.yaml");
    let mut kustomize = Command::new("kubectl");
    kustomize.arg("kustomize").arg(repository().join("packaging/kubernetes"));
    run_program(kustomize.stdout(fs::File::create(&manifest)?))?;
    run_program(command("kubernetes-validate").arg("--strict").arg(&manifest))?;
    Ok(None)
}

fn container(_: &Path) -> anyhow::Result<Option<&'static str>> {
    const DOCKERFILE: &str = "packaging/container/Dockerfile";
    run_program(command("hadolint").arg(DOCKERFILE).current_dir(repository()))?;
    // The client alone builds nothing.
    let engine = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !engine.is_ok_and(|status| status.success()) {
        return Ok(Some("no engine answers `docker info`; the Dockerfile itself was looked at, and is in order"));
    }
    let tag = concat!("distwatch:", env!("CARGO_PKG_VERSION"));
    run_program(Command::new("docker").args(["build", "-f", DOCKERFILE, "-t", tag, "."]).current_dir(repository()))?;
    Ok(None)
}

/// The one package of this kind in the folder.
fn the_one(folder: &Path, ending: &str) -> anyhow::Result<PathBuf> {
    let found = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = found.filter(|path| path.extension().is_some_and(|own| own == ending));
    found.next().with_context(|| format!("no .{ending} was made in {}", folder.display()))
}
