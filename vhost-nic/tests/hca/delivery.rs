//! Command delivery: mailboxes, slots, and delivery errors.

use std::sync::Arc;

use mlx5_prm::capability::{QueryHcaCapIn, QueryHcaCapOut};
use mlx5_prm::command::{CommandEntry, Mailbox, Status};
use mlx5_prm::init_hca::{QueryAdapterIn, QueryAdapterOut};
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use mlx5_test_driver::command::{CommandError, Commands, Prepared};
use mlx5_test_driver::domain::{alloc_pd, dealloc_pd};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::memory::{BASE, SIZE};
use proptest::prelude::*;
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::net::Switch;
use zerocopy::{FromBytes, IntoBytes};

use crate::found::{Found, found};
use crate::inspect::Inspect;
use crate::nic::machine;

/// `MLX5_CMD_DELIVERY_STAT_*`.
mod status {
    pub const TOKEN: u8 = 2;
    pub const BLOCK_NUMBER: u8 = 3;
    pub const OUTPUT_POINTER: u8 = 4;
    pub const INPUT_POINTER: u8 = 5;
    pub const INPUT_LENGTH: u8 = 7;
    pub const DESCRIPTOR: u8 = 0x10;
}

/// Offsets in a mailbox.
const NEXT: u64 = 560;
const BLOCK_NUMBER: u64 = 568;
const TOKEN: u64 = 573;

fn hca() -> Hca {
    Hca::boot(&Arc::new(machine(&Switch::new(), 1)))
}

/// A command whose input and output take several mailboxes each.
fn long(commands: &Commands) -> Prepared {
    let mut input = QueryHcaCapIn::default().as_bytes().to_vec();
    input[..2].copy_from_slice(&Opcode::QUERY_HCA_CAP.0.to_be_bytes());
    input.resize(3000, 0);
    commands.prepare(&input, QueryHcaCapOut::SIZE)
}

fn run(commands: &Commands, command: &Prepared) -> Result<Vec<u8>, CommandError> {
    commands.post(0, command);
    commands.ring(1);
    commands.finish(0, command)
}

#[track_caller]
fn fails(hca: &Hca, status: u8, damage: impl FnOnce(&mut Prepared)) {
    let mut command = long(&hca.commands);
    damage(&mut command);
    assert_eq!(run(&hca.commands, &command), Err(CommandError::Delivery(status)));
    // The next command is not affected.
    run(&hca.commands, &long(&hca.commands)).unwrap();
}

#[test]
fn long_commands_go_through_chains_of_mailboxes() {
    let hca = hca();
    let output = run(&hca.commands, &long(&hca.commands)).unwrap();
    assert_eq!(output.len(), QueryHcaCapOut::SIZE);
    assert_eq!(output[16..][..64], hca_bytes(&hca)[..64]);
    hca.shutdown();
}

/// Queries the maximum general capabilities.
fn hca_bytes(hca: &Hca) -> Vec<u8> {
    let (output, _): (QueryHcaCapOut, _) = hca
        .commands
        .call_with(Opcode::QUERY_HCA_CAP, 0, &QueryHcaCapIn::default(), &[], 0)
        .unwrap();
    output.capability().to_vec()
}

#[test]
fn damaged_chains_are_told_by_their_delivery_status() {
    let hca = hca();
    let nowhere = BASE + SIZE;
    fails(&hca, status::INPUT_POINTER, |command| {
        command.entry.input_mailbox.set(nowhere)
    });
    fails(&hca, status::INPUT_POINTER, |command| {
        command.entry.input_mailbox.set(0)
    });
    fails(&hca, status::INPUT_POINTER, |command| {
        command.input[2].write(NEXT, &u64::MAX.to_be_bytes())
    });
    fails(&hca, status::INPUT_POINTER, |command| {
        command.entry.input_mailbox.set(nowhere - 100)
    });
    fails(&hca, status::OUTPUT_POINTER, |command| {
        command.entry.output_mailbox.set(nowhere)
    });
    fails(&hca, status::OUTPUT_POINTER, |command| {
        command.output[3].write(NEXT, &3_u64.to_be_bytes())
    });
    fails(&hca, status::TOKEN, |command| {
        command.input[1].write(TOKEN, &[command.entry.token ^ 1])
    });
    fails(&hca, status::TOKEN, |command| {
        command.output[1].write(TOKEN, &[command.entry.token ^ 1])
    });
    fails(&hca, status::TOKEN, |command| command.entry.token ^= 0x80);
    fails(&hca, status::BLOCK_NUMBER, |command| {
        command.input[1].write(BLOCK_NUMBER, &7_u32.to_be_bytes())
    });
    fails(&hca, status::BLOCK_NUMBER, |command| {
        command.output[1].write(BLOCK_NUMBER, &0_u32.to_be_bytes())
    });
    fails(&hca, status::DESCRIPTOR, |command| command.entry.kind = 6);
    hca.shutdown();
}

#[test]
fn a_chain_that_loops_is_not_followed_for_ever() {
    let hca = hca();
    fails(&hca, status::BLOCK_NUMBER, |command| {
        let first = command.input[0].address();
        command.input[3].write(NEXT, &first.to_be_bytes());
    });
    fails(&hca, status::BLOCK_NUMBER, |command| {
        let itself = command.output[0].address();
        command.output[0].write(NEXT, &itself.to_be_bytes());
    });
    hca.shutdown();
}

#[test]
fn lengths_beyond_all_measure_are_refused() {
    let hca = hca();
    for length in [4 << 20 | 1, 1 << 30, u32::MAX] {
        fails(&hca, status::INPUT_LENGTH, |command| {
            command.entry.input_length.set(length)
        });
    }
    for length in [0, 1, 7] {
        fails(&hca, status::INPUT_LENGTH, |command| {
            command.entry.input_length.set(length)
        });
    }
    fails(&hca, status::INPUT_POINTER, |command| {
        command.entry.input_length.set(4 << 20)
    });
    hca.shutdown();
}

#[test]
fn an_output_without_room_is_refused() {
    let hca = hca();
    let mut input = QueryHcaCapIn::default().as_bytes().to_vec();
    input[..2].copy_from_slice(&Opcode::QUERY_HCA_CAP.0.to_be_bytes());
    for room in [8, 16, 100, QueryHcaCapOut::SIZE - 1] {
        let error = hca.commands.execute(&input, room).unwrap_err();
        assert!(error.is(Status::BadOutputLength), "{error:?}");
    }
    assert_eq!(
        hca.commands.execute(&input, 0),
        Ok(Vec::new()),
        "there is no room for a status"
    );
    hca.shutdown();
}

#[test]
fn several_slots_are_served_by_one_doorbell() {
    let hca = hca();
    let commands: Vec<Prepared> = (0..30).map(|_| long(&hca.commands)).collect();
    for (slot, command) in (0..).zip(&commands) {
        hca.commands.post(slot, command);
    }
    hca.commands.ring((1 << 30) - 1);
    for (slot, command) in (0..).zip(&commands) {
        assert_eq!(hca.commands.finish(slot, command).unwrap().len(), QueryHcaCapOut::SIZE);
    }
    hca.shutdown();
}

#[test]
fn many_threads_send_commands_at_once() {
    let hca = hca();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let pd = alloc_pd(&hca).unwrap();
                    assert_eq!(hca_bytes(&hca).len(), 4096);
                    dealloc_pd(&hca, pd).unwrap();
                }
            });
        }
    });
    hca.shutdown();
}

#[test]
fn a_slot_without_a_command_is_left_alone() {
    let hca = hca();
    let before = hca.commands.entry(5);
    hca.commands.ring(1 << 5);
    assert_eq!(hca.commands.entry(5).as_bytes(), before.as_bytes());
    let expected = Found::new(Finding::CommandUnreadable, "command_slot", 5, before.as_bytes());
    assert_eq!(found(&hca.machine), [expected]);
    hca.shutdown();
}

#[test]
fn a_command_queue_outside_memory_harms_nobody() {
    let machine = Arc::new(machine(&Switch::new(), 1));
    for (high, low) in [(u32::MAX, !0xfff), (0, 0), (((BASE + SIZE) >> 32) as u32, 0)] {
        machine.write(0x10, high);
        machine.write(0x14, low);
        machine.write(0x18, u32::MAX);
    }
    assert_eq!(
        machine.nic().snapshot().guest_errors.get("command_unreadable"),
        Some(&96)
    );
    // Each with the address of its entry.
    let last = ((BASE + SIZE) & !0xffff_ffff) + 31 * 64;
    let evidence = last.to_be_bytes();
    let expected = [
        Found::new(Finding::CommandUnreadable, "command_slot", 31, &evidence),
        Found::new(Finding::DmaOutside, "command_slot", 31, &evidence),
    ];
    assert!(found(&machine).ends_with(&expected));
    Hca::boot(&machine).shutdown();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_entry_gets_an_answer(bytes in proptest::collection::vec(any::<[u8; 64]>(), 1..50)) {
        let hca = hca();
        hca.commands.use_events(None);
        for bytes in bytes {
            let mut command = Prepared {
                entry: CommandEntry::read_from_bytes(&bytes).unwrap(),
                input: Vec::new(),
                output: Vec::new(),
            };
            command.entry.status_own |= 1;
            command.entry.output_length.set(command.entry.output_length.get() % 17);
            hca.commands.post(3, &command);
            hca.commands.ring(1 << 3);
            prop_assert_ne!(hca.commands.finish(3, &command), Err(CommandError::Timeout));
        }
    }
}

#[test]
fn a_mailbox_is_not_written_behind_the_output() {
    let hca = hca();
    let mut input = QueryAdapterIn::default().as_bytes().to_vec();
    input[..2].copy_from_slice(&Opcode::QUERY_ADAPTER.0.to_be_bytes());
    let command = hca.commands.prepare(&input, QueryAdapterOut::SIZE);
    let used = QueryAdapterOut::SIZE - CommandEntry::INLINE;
    command.output[0].write(used as u64, &vec![0xee; Mailbox::DATA - used]);
    assert_eq!(run(&hca.commands, &command).unwrap().len(), QueryAdapterOut::SIZE);
    assert!(
        command.output[0]
            .read(used as u64, Mailbox::DATA - used)
            .iter()
            .all(|&byte| byte == 0xee)
    );
    drop(command);
    hca.shutdown();
}
