//! Says which package to install where libpcap cannot be linked, before the linker says it less clearly.

use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBPCAP_LIBDIR");
    println!("cargo::rerun-if-env-changed=CC");
    let wanted = env::var_os("CARGO_FEATURE_PCAP").is_some();
    // Only the linker of the target knows its libraries, and this asks the one of this machine.
    let native = env::var_os("TARGET") == env::var_os("HOST");
    if wanted && native && !links_with_libpcap() {
        println!("cargo::error=libpcap, which live capture needs, cannot be linked");
        println!(
            "cargo::error=install libpcap-dev (Debian, Ubuntu), libpcap-devel (Fedora, openSUSE) or libpcap (Arch)"
        );
        println!("cargo::error=or build without it: --no-default-features (capture by eBPF, and analysis, stay)");
    }
}

/// Links an empty program. Where that cannot be tried the build goes on, and the linker decides.
fn links_with_libpcap() -> bool {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = std::path::Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("links-with-libpcap");
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-", "-x", "none", "-o"]).arg(output);
    if let Some(directory) = env::var_os("LIBPCAP_LIBDIR") {
        command.arg("-L").arg(directory);
    }
    command.arg("-lpcap").stdin(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return true;
    };
    let written =
        child.stdin.take().is_some_and(|mut stdin| stdin.write_all(b"int main(void) { return 0; }\n").is_ok());
    let linked = child.wait().is_ok_and(|status| status.success());
    linked || !written
}
