//! A run: boots the guests, runs the commands to their end, collects the results.

use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guest_harness::sweep::Occasion;
use guest_harness::{Accel, Cmd, Guest, Testbed};

use crate::args::Arguments;
use crate::devices::{self, DeviceDaemon};
use crate::environment;
use crate::evidence::Evidence;
use crate::kernel;
use crate::module;
use crate::program::{Ended, Outcome, Program, Shown};
use crate::results;
use crate::share::Share;
use crate::sweep;

/// Time for which scripts of other guests may go on when the command has ended.
const GRACE: Duration = Duration::from_secs(10);

/// Longest wait for the script of another guest to listen on a port.
const LISTENING: Duration = Duration::from_secs(30);

/// Status of a run that fails although its command succeeded.
const COMPLAINED: u8 = 1;

/// Runs the command line; returns the status of the process.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let begin = Instant::now();
    let scripts = scripts(arguments)?;
    let current = env::current_dir().context("cannot read the current directory")?;
    let share = Share::new(arguments.share.as_deref().unwrap_or(&current), &current)?;
    let scratch = tempfile::Builder::new()
        .prefix("in-guest-scratch-")
        .tempdir()
        .context("cannot create a folder for temporary files")?;
    let image = kernel::image(arguments, scratch.path())?;
    let results = results::create(arguments.results.as_deref())?;
    let say = |text: &str| {
        if !arguments.quiet {
            eprintln!("==> {text}");
        }
    };

    let mut builder = Testbed::builder("in-guest")
        .guests(arguments.guests.into())
        .smp(arguments.cpus)
        .results(&results)
        .qemu_args(share.qemu_args())
        .kernel_arg("log_buf_len=2M");
    if image.accel == Accel::Tcg {
        // Under emulation on a busy host a processor stands still for longer than the kernel thinks possible.
        builder = builder.kernel_arg("rcupdate.rcu_cpu_stall_suppress=1");
    }
    if let Some(mib) = arguments.memory {
        builder = builder.memory_mib(mib);
    }
    for parameter in &arguments.kernel_arg {
        builder = builder.kernel_arg(parameter);
    }
    for folder in &arguments.module {
        say(&format!("building the module in {}", folder.display()));
        for file in module::build(folder, &image)? {
            builder = builder.share(file);
        }
    }
    let (builder, daemons) = devices::add(arguments, builder, scratch.path(), &results)?;
    say(&format!(
        "booting {} with Linux {}",
        match arguments.guests {
            1 => "a guest".to_owned(),
            count => format!("{count} guests"),
        },
        image.kernel_release
    ));
    let started = builder.image(image).start();
    let session = Session {
        arguments,
        share,
        results: &results,
        daemons,
    };
    let status = started
        .map_err(anyhow::Error::from)
        .and_then(|testbed| session.conduct(&testbed, &scripts, begin));
    say(&format!("results: {}", results.display()));
    status
}

/// Returns the scripts of the other guests, by number.
fn scripts(arguments: &Arguments) -> Result<Vec<(usize, String)>> {
    let script = |text: &String| {
        let Some((name, script)) = text.split_once('=') else {
            bail!("--on {text} has no script: it is GUEST=SCRIPT");
        };
        let index = match name.as_bytes() {
            [letter @ b'b'..=b'd'] => usize::from(letter - b'a'),
            _ => bail!("--on names guest {name}: it is one of b, c and d, as the command runs in a"),
        };
        ensure!(
            index < arguments.guests.into(),
            "--on names guest {name}, but there are {} guests; see --guests",
            arguments.guests
        );
        Ok((index, script.to_owned()))
    };
    arguments.on.iter().map(script).collect()
}

struct Session<'a> {
    arguments: &'a Arguments,
    share: Share,
    results: &'a Path,
    daemons: Vec<DeviceDaemon>,
}

impl Session<'_> {
    /// Sets up the guests, runs the commands and collects what they leave.
    fn conduct(&self, testbed: &Testbed, scripts: &[(usize, String)], begin: Instant) -> Result<u8> {
        let mut evidence = Evidence::default();
        let ended = self.set_up(testbed).and_then(|()| {
            if !self.arguments.quiet {
                eprintln!("==> up after {:.1} s", begin.elapsed().as_secs_f64());
            }
            match &self.arguments.sweep {
                None => self.run_commands(testbed, scripts),
                Some(occasion) => self
                    .sweep(testbed, scripts, occasion, &mut evidence)
                    .map(|()| Vec::new()),
            }
        });
        let lines = self.collect(testbed, ended.as_deref().unwrap_or_default(), &mut evidence);
        for complaint in &evidence.complaints {
            eprintln!("error: {complaint}");
        }
        let ended = ended?;
        let lines = lines?;
        if !self.arguments.quiet {
            lines.iter().for_each(|line| eprintln!("    {line}"));
        }
        let failed = ended
            .iter()
            .map(|(_, ended)| ended.outcome.status())
            .find(|status| *status != 0);
        Ok(failed.unwrap_or(if evidence.complaints.is_empty() { 0 } else { COMPLAINED }))
    }

    /// Makes booted guests ready for commands.
    fn set_up(&self, testbed: &Testbed) -> Result<()> {
        let mount = self.share.mount_script();
        testbed.each(|guest| {
            guest
                .shell(&mount)
                .called("mount the caller's folder")
                .run()?
                .check()
                .map(drop)
        })?;
        devices::set_up(self.arguments, testbed)?;
        if let Some(plan) = &self.arguments.faults {
            for daemon in &self.daemons {
                daemon.apply_faults(plan)?;
            }
        }
        Ok(())
    }

    /// Runs all commands to their end; the first is the one whose streams are passed through.
    fn run_commands(&self, testbed: &Testbed, scripts: &[(usize, String)]) -> Result<Vec<(String, Ended)>> {
        let mut others = Vec::new();
        for (index, script) in scripts {
            let guest = testbed.guest(*index);
            let argv = ["bash", "-c", script].map(str::to_owned).to_vec();
            let before = listeners(guest)?;
            let program = self.start(testbed, guest, argv, Shown::Prefixed)?;
            program.starve();
            wait_listening(guest, &program, &before)?;
            others.push((guest.name().to_owned(), program));
        }
        if self.arguments.each {
            for guest in &testbed.guests()[1..] {
                let program = self.start(testbed, guest, self.arguments.argv(), Shown::Prefixed)?;
                program.starve();
                others.push((guest.name().to_owned(), program));
            }
        }
        let first = testbed.guest(0);
        let program = self.start(testbed, first, self.arguments.argv(), Shown::Plain)?;
        match self.arguments.sweep {
            None => program.feed(),
            Some(_) => program.starve(),
        }
        let limit = self.arguments.timeout;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let stop = &stop;
            let threads: Vec<_> = others
                .into_iter()
                .map(|(name, program)| (name, scope.spawn(move || program.wait(limit, stop))))
                .collect();
            let ended = program.wait(limit, &AtomicBool::new(false));
            let since = Instant::now();
            while !self.arguments.each
                && since.elapsed() < GRACE
                && threads.iter().any(|(_, thread)| !thread.is_finished())
            {
                thread::sleep(Duration::from_millis(50));
            }
            stop.store(!self.arguments.each || ended.is_err(), Ordering::Relaxed);
            let mut all = vec![(first.name().to_owned(), ended?)];
            for (name, thread) in threads {
                let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                all.push((name, ended));
            }
            Ok(all)
        })
    }

    fn start(&self, testbed: &Testbed, guest: &Guest, argv: Vec<String>, shown: Shown) -> Result<Program> {
        let command = self.command(testbed, guest, argv)?.called("the command");
        // A sweep repeats the command too often.
        let shown = if self.arguments.sweep.is_some() {
            Shown::Hidden
        } else {
            shown
        };
        let log = self.results.join(format!("output-{}.log", guest.name()));
        Program::start(guest, command, &log, shown)
    }

    /// Returns a command with the variables of its guest, in the shared folder.
    fn command(&self, testbed: &Testbed, guest: &Guest, argv: Vec<String>) -> Result<Cmd> {
        let variables = environment::variables(guest, testbed.guests(), self.arguments.has_nic(), &self.share)?;
        let command = variables
            .into_iter()
            .fold(guest.command(argv), |command, (name, value)| command.env(name, value));
        Ok(command.cwd(self.share.directory().display().to_string()))
    }

    /// Runs all commands again and again, with the next occasion at the first guest's device failing each time.
    fn sweep(
        &self,
        testbed: &Testbed,
        scripts: &[(usize, String)],
        occasion: &Occasion,
        evidence: &mut Evidence,
    ) -> Result<()> {
        let daemon = self.daemons.iter().find(|daemon| daemon.name == occasion.daemon());
        let daemon = daemon.with_context(|| format!("--sweep is about {}, and there is none", occasion.daemon()))?;
        let undo = || {
            let script = self.arguments.sweep_undo.as_ref();
            let argv = script.map(|script| ["bash", "-c", script].map(str::to_owned).to_vec());
            let command = argv
                .map(|argv| self.command(testbed, testbed.guest(0), argv))
                .transpose()?;
            Ok(command.map(|command| command.called("the undoing").timeout(self.arguments.timeout)))
        };
        let commands = sweep::Commands {
            testbed,
            run: &|| self.run_commands(testbed, scripts),
            undo: &undo,
            set_up: &|| self.set_up(testbed),
        };
        sweep::run(
            self.arguments,
            occasion,
            &daemon.control,
            &commands,
            self.results,
            evidence,
        )
    }

    /// Leaves logs, findings, traces and reports in the results, and ends guests and daemons; returns lines about them.
    fn collect(&self, testbed: &Testbed, ended: &[(String, Ended)], evidence: &mut Evidence) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for (name, ended) in ended {
            let seconds = ended.elapsed.as_secs_f64();
            match &ended.outcome {
                Outcome::Exit(exit) if exit.success() => {}
                Outcome::Exit(exit) => lines.push(format!("guest {name}: {exit} after {seconds:.1} s")),
                Outcome::Stopped => lines.push(format!("guest {name}: ended, as the command had")),
                Outcome::TimeLimit => {
                    let limit = humantime::format_duration(self.arguments.timeout);
                    evidence
                        .complaints
                        .push(format!("guest {name}: ended at the time limit of {limit}"));
                }
                Outcome::Lost(why) => evidence.complaints.push(why.clone()),
            }
            evidence.search(&format!("guest {name}"), &ended.output);
        }
        for guest in testbed.guests() {
            // A guest that was lost has its console only.
            if let Ok(log) = guest.run("dmesg") {
                results::write(self.results, &format!("dmesg-{}.log", guest.name()), &log.stdout)?;
                evidence.search(&format!("kernel of guest {}", guest.name()), log.stdout.as_bytes());
            }
        }
        for daemon in &self.daemons {
            for (finding, count) in daemon.collect(self.arguments.trace, self.results)? {
                lines.push(format!("{}: finding {finding}, {count} recorded", daemon.name));
            }
        }
        let off = testbed.power_off();
        for guest in testbed.guests() {
            evidence.add_splats(guest);
        }
        if let Err(error) = testbed.stop_daemons() {
            evidence.complaints.push(error.to_string());
        }
        lines.extend(evidence.report(self.results)?);
        // A guest with a splat may be unable to power off.
        if evidence.complaints.is_empty() {
            off?;
        }
        Ok(lines)
    }
}

/// Returns the local addresses of all sockets that wait for connections, in TCP and rdma_cm.
fn listeners(guest: &Guest) -> Result<String> {
    let look = "ss -Hltn | awk '{print $4}' | sort; rdma resource show cm_id 2>/dev/null | grep 'state LISTEN' | sort";
    Ok(guest.shell(look).called("look for open ports").run()?.stdout)
}

/// Waits until a program of the guest listens on one more port, or the program has ended.
fn wait_listening(guest: &Guest, program: &Program, before: &str) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < LISTENING && !program.is_finished() && listeners(guest)? == before {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
