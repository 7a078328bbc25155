//! Detection of kernel splats: oopses, warnings and other error reports on the console.

/// Phrases that start a splat.
const HEADS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "INFO: possible",
    "INFO: suspicious",
    "INFO: trying to register non-static key",
    "INFO: rcu",
    "INFO: NMI handler",
    "Oops:",
    "Oops ",
    "general protection fault",
    "kernel BUG at",
    "Kernel panic",
    "Kernel BUG",
    "UBSAN:",
    "DMA-API:",
    "KFENCE:",
    "Unable to handle",
    "divide error",
    "invalid opcode",
    "stack segment",
    "unable to handle",
    "detected stall",
    "self-detected stall",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "unregister_netdevice: waiting for",
    "kmemleak:",
    "Slab cache still has objects",
    "kmem_cache_destroy",
];

/// A report of KASAN kernel 7.3 about itself in about one boot of ten, before any of our code runs: a timer interrupt
/// during the identification of the first processor.
const KNOWN: &[(&str, &str)] = &[(" in rcu_is_watching+", "arch_cpu_finalize_init")];

/// Limit on the lines kept after the first line of a splat.
const CONTEXT_LINES: usize = 45;

/// Returns the splats in a console log, each with the lines that follow it, except splats with a line that contains one
/// of `allowed`.
///
/// Only lines with a printk time stamp count, so that program output is not taken for kernel output. A splat that
/// begins within the context of another is reported separately, so none hides behind an allowed one.
pub fn find_splats(console: &str, allowed: &[String]) -> Vec<String> {
    let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
    let mut splats = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if !is_head(line) {
            continue;
        }
        let mut block = vec![*line];
        for line in lines[index + 1..].iter().take(CONTEXT_LINES) {
            if is_head(line) {
                break;
            }
            block.push(line);
            if line.contains("---[ end ") {
                break;
            }
        }
        let text = block.join("\n");
        let known = KNOWN
            .iter()
            .any(|(head, context)| line.contains(head) && text.contains(context));
        if !known && !allowed.iter().any(|allowed| text.contains(allowed)) {
            splats.push(text);
        }
    }
    splats
}

fn is_head(line: &str) -> bool {
    message(line).is_some_and(|message| {
        HEADS.iter().any(|head| message.contains(head))
            || (message.contains("INFO: task ") && message.contains("blocked for more than"))
    })
}

/// Returns the text after the printk time stamp of a line, `[   12.345678] ` or `[   12.345678][  T123] `.
fn message(line: &str) -> Option<&str> {
    let mut rest = line;
    while let Some(open) = rest.find('[') {
        rest = &rest[open + 1..];
        let (stamp, after) = rest.split_once(']')?;
        let digits = stamp.trim_start();
        if let Some((seconds, fraction)) = digits.split_once('.')
            && !seconds.is_empty()
            && seconds.bytes().all(|byte| byte.is_ascii_digit())
            && fraction.len() == 6
            && fraction.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Some(after);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splats(console: &str) -> Vec<String> {
        find_splats(console, &[])
    }

    #[test]
    fn the_usual_suspects_are_found() {
        for line in [
            "[    3.141592] BUG: kernel NULL pointer dereference, address: 0000000000000010",
            "[    3.141592] BUG: KASAN: slab-use-after-free in smcd_lgr_peer_id+0x12/0x40 [smc]",
            "[    3.141592] WARNING: CPU: 1 PID: 77 at net/smc/smc_core.c:1234 smc_conn_free+0x1/0x2 [smc]",
            "[    3.141592] WARNING: possible circular locking dependency detected",
            "[    3.141592] WARNING: suspicious RCU usage",
            "[    3.141592] INFO: task smc-tool:99 blocked for more than 122 seconds.",
            "[    3.141592] Oops: general protection fault, non-canonical address 0xdead: 0000 [#1] SMP KASAN",
            "[    3.141592] Kernel panic - not syncing: Fatal exception",
            "[    3.141592] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[    3.141592] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "[    3.141592] kernel BUG at mm/memory.c:100!",
            "[    3.141592][   T99] BUG: sleeping function called from invalid context",
            "half a line of a program[    3.141592] UBSAN: array-index-out-of-bounds in x.c:1:2",
        ] {
            assert_eq!(splats(line), [line]);
        }
    }

    #[test]
    fn ordinary_lines_are_not() {
        let console = "\
[    0.000000] Linux version 7.3.4 (gcc) #1 SMP PREEMPT_LAZY
[    0.100000] Command line: root=/dev/vda ro init=/init console=ttyS0 panic=-1 quiet
BUG: this is what a program printed
WARNING: so is this [1.2]
[    1.000000] smc: adding smcd device with pnetid
[    1.100000] debug: no bugs here
";
        assert_eq!(splats(console), Vec::<String>::new());
    }

    #[test]
    fn the_context_comes_along() {
        let console = "\
[    1.000000] before
[    1.000001] ------------[ cut here ]------------
[    1.000002] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\r
[    1.000003] Call Trace:
[    1.000004]  g+0x3/0x4
[    1.000005] ---[ end trace 0000000000000000 ]---
[    1.000006] after
";
        let splats = splats(console);
        assert_eq!(splats.len(), 1);
        assert!(splats[0].contains("g+0x3/0x4"));
        assert!(!splats[0].contains("after"));
        assert!(!splats[0].contains("before"));
    }

    #[test]
    fn allowed_splats_do_not_hide_others() {
        let console = "\
[    1.000002] WARNING: CPU: 0 PID: 1 at a.c:1 expected_one+0x1/0x2
[    1.000003] Call Trace:
[    1.000004] BUG: KASAN: use-after-free in worse+0x1/0x2
[    1.000005] Call Trace:
";
        let left = find_splats(console, &["expected_one".into()]);
        assert_eq!(left.len(), 1);
        assert!(left[0].contains("worse"));
        assert!(find_splats(console, &["expected_one".into(), "worse".into()]).is_empty());
    }

    #[test]
    fn the_one_known_false_report_is_left_out() {
        let report = |caller: &str| {
            format!(
                "[    0.005000] BUG: KASAN: wild-memory-access in rcu_is_watching+0x21/0x50\n\
                 [    0.005000] Call Trace:\n[    0.005000]  {caller}+0x1/0x2\n"
            )
        };
        assert!(splats(&report("arch_cpu_finalize_init")).is_empty());
        assert_eq!(splats(&report("smc_listen")).len(), 1);
    }
}
