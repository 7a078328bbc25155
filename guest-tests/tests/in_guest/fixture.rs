//! Runs of the program, each in a folder of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guest_harness::{Image, cache_dir, program, workspace_dir};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the command after two directories, with these read-only.
const READ_ONLY: &str = r#"
for directory in "$1" "$2"; do
    mount --bind "$directory" "$directory"
    mount -o remount,bind,ro "$directory"
    ! touch "$directory/new" 2>/dev/null
done
shift 2
exec "$@"
"#;

/// A folder to share, with the results of a run next to it.
pub struct Folder {
    folder: TempDir,
    /// User of the runs, if it is another one.
    user: Option<u32>,
}

/// Output of the program.
pub struct Run {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Folder {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("share")).expect("a folder to share");
        Self { folder, user: None }
    }

    /// Creates a folder of another user, who runs the program without a network, and from a checkout and a cache that
    /// cannot be written; needs root.
    pub fn of_user(user: u32) -> Self {
        let mut folder = Self::new();
        for path in [folder.folder.path().to_owned(), folder.share()] {
            chown(path, Some(user), Some(user)).expect("root changes owners");
        }
        folder.user = Some(user);
        folder
    }

    /// The caller's folder.
    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// Reads a file of the results.
    pub fn result(&self, name: &str) -> String {
        let path = self.results().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Reads a JSON file of the results.
    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.result(name)).expect(name)
    }

    /// Whether the results have a file.
    pub fn has_result(&self, name: &str) -> bool {
        self.results().join(name).exists()
    }

    fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    /// Writes a file of the caller's folder.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.share().join(name);
        fs::write(&path, content).expect(name);
        path
    }

    /// Runs the program in the folder with `input`; `words` are options, `--` and the command.
    pub fn run(&self, words: &[&str], input: &str) -> Run {
        let program = program("in-guest").expect("in-guest is built");
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--net", "--", "bash", "-ec", READ_ONLY, "bash"]);
                command.args([workspace_dir(), cache_dir()]);
                command.arg("setpriv");
                command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
                command.arg(program);
                command
            }
        };
        let mut child = command
            .arg("--results")
            .arg(self.results())
            .args(words)
            .current_dir(self.share())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("in-guest starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("in-guest reads its input");
        drop(stdin);
        let output = child.wait_with_output().expect("in-guest ends");
        let run = Run {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        eprintln!("{words:?}: status {:?}\n{}{}", run.status, run.stdout, run.stderr);
        run
    }
}

/// Installs the modules of our own kernel in a folder; returns its bzImage.
pub fn install_kernel(folder: &Path) -> PathBuf {
    let image = Image::load().expect("our own kernel");
    let modules = folder.join("lib/modules").join(&image.kernel_release);
    fs::create_dir_all(modules).expect("a folder of modules");
    let status = Command::new("make")
        .arg("-s")
        .arg("-C")
        .arg(image.kernel_build.expect("a build tree"))
        .arg(format!("INSTALL_MOD_PATH={}", folder.display()))
        .args(["ARCH=x86_64", "INSTALL_MOD_STRIP=1", "modules_install"])
        .status()
        .expect("make runs");
    assert!(status.success());
    image.kernel
}

/// Writes the sources of a module that prints a line and fails to load with `error`.
pub fn write_module(folder: &Path, error: i32) {
    let source = format!(
        "// SPDX-License-Identifier: GPL-2.0\n\
         #include <linux/module.h>\n\
         static int __init hello_init(void)\n\
         {{\n\
         \tpr_info(\"hello from a module\\n\");\n\
         \treturn {error};\n\
         }}\n\
         static void __exit hello_exit(void) {{}}\n\
         module_init(hello_init);\n\
         module_exit(hello_exit);\n\
         MODULE_DESCRIPTION(\"Module of a test\");\n\
         MODULE_LICENSE(\"GPL\");\n"
    );
    fs::write(folder.join("hello.c"), source).expect("the module's source");
    fs::write(folder.join("Kbuild"), "obj-m := hello.o\n").expect("the module's makefile");
}
