//! Faults of commands: refusals, delays, losses, and reserved bits of outputs.

use std::time::Duration;

use mlx5_prm::capability::{CmdHcaCap, QueryHcaCapIn, QueryHcaCapOut};
use mlx5_prm::capability_group::{AtomicCaps, FlowTableNicCap, PerProtocolNetworkingOffloadCaps, RoceCap};
use mlx5_prm::command::Status;
use mlx5_prm::domain::{AllocPdIn, AllocPdOut};
use mlx5_prm::layout::{self, Layout};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::vport::{QueryNicVportContextIn, QueryNicVportContextOut};
use mlx5_test_driver::command::CommandError;
use mlx5_test_driver::domain::{alloc_pd, dealloc_pd};
use mlx5_test_driver::hca::Hca;
use zerocopy::{FromBytes, IntoBytes};

use crate::faults::Faulty;

#[test]
fn the_chosen_command_is_refused_with_any_status_and_syndrome() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    faulty.apply(
        "[[fault]]\nkind = \"command_refused\"\nopcode = \"ALLOC_PD\"\nskip = 1\n\
         count = 1\nstatus = 0xf\nsyndrome = 0x123456",
    );
    let objects = hca.machine.device().objects();
    let first = alloc_pd(&hca).unwrap();
    assert_eq!(
        alloc_pd(&hca),
        Err(CommandError::Refused(Status::NoResources as u8, 0x12_3456))
    );
    assert_eq!(
        hca.machine.device().objects()["pd"],
        objects.get("pd").unwrap_or(&0) + 1
    );
    let third = alloc_pd(&hca).unwrap();
    for pd in [first, third] {
        dealloc_pd(&hca, pd).unwrap();
    }
    hca.shutdown();
}

#[test]
fn a_late_command_is_answered_behind_a_later_one() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    faulty.apply("[[fault]]\nkind = \"command_late\"\nopcode = \"ALLOC_PD\"\ncount = 1\ndelay = \"100ms\"");
    let input = AllocPdIn::default();
    let mut bytes = input.as_bytes().to_vec();
    bytes[..2].copy_from_slice(&Opcode::ALLOC_PD.0.to_be_bytes());
    let late = hca.commands.prepare(&bytes, size_of::<AllocPdOut>());
    hca.commands.post(7, &late);
    hca.commands.ring(1 << 7);
    assert_eq!(hca.commands.entry(7).status_own & 1, 1, "the device owns the entry");
    let other = alloc_pd(&hca).unwrap();
    let output = hca.commands.finish(7, &late).unwrap();
    let pd = u32::from_be_bytes(*output[8..].first_chunk().unwrap());
    assert_ne!(pd, other);
    for pd in [pd, other] {
        dealloc_pd(&hca, pd).unwrap();
    }
    hca.shutdown();
}

#[test]
fn a_command_that_is_late_is_not_answered_after_a_reset() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    faulty.apply("[[fault]]\nkind = \"command_late\"\nopcode = \"ALLOC_PD\"\ndelay = \"50ms\"");
    let mut bytes = AllocPdIn::default().as_bytes().to_vec();
    bytes[..2].copy_from_slice(&Opcode::ALLOC_PD.0.to_be_bytes());
    let late = hca.commands.prepare(&bytes, size_of::<AllocPdOut>());
    hca.commands.post(7, &late);
    hca.commands.ring(1 << 7);
    faulty.machine.device().reset();
    // Work is done in the order of its times: this is behind the answer.
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(hca.commands.entry(7).status_own & 1, 1, "answered after the reset");
}

#[test]
fn a_lost_command_is_executed_or_not_and_never_answered() {
    for (executed, pds) in [(false, 0), (true, 1)] {
        let faulty = Faulty::new();
        let hca = Hca::boot(&faulty.machine);
        faulty.apply(&format!(
            "[[fault]]\nkind = \"command_lost\"\nopcode = \"ALLOC_PD\"\ncount = 1\nexecuted = {executed}"
        ));
        let mut bytes = AllocPdIn::default().as_bytes().to_vec();
        bytes[..2].copy_from_slice(&Opcode::ALLOC_PD.0.to_be_bytes());
        let lost = hca.commands.prepare(&bytes, size_of::<AllocPdOut>());
        hca.commands.post(7, &lost);
        hca.commands.ring(1 << 7);
        let pd = alloc_pd(&hca).unwrap();
        assert_eq!(hca.commands.entry(7).status_own & 1, 1);
        dealloc_pd(&hca, pd).unwrap();
        assert_eq!(hca.machine.device().objects().get("pd").copied().unwrap_or(0), pds);
    }
}

#[test]
fn reserved_bits_of_an_output_are_random_and_the_rest_is_right() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    faulty.apply("seed = 3\n[[fault]]\nkind = \"reserved_bits\"");
    let mut bytes = AllocPdIn::default().as_bytes().to_vec();
    bytes[..2].copy_from_slice(&Opcode::ALLOC_PD.0.to_be_bytes());
    let outputs = [0, 1].map(|_| hca.commands.execute(&bytes, size_of::<AllocPdOut>()).unwrap());
    assert_ne!(outputs[0][1..4], [0; 3]);
    assert_ne!(outputs[0][1..4], outputs[1][1..4]);
    for output in outputs {
        assert_eq!((output[0], &output[4..8]), (0, &[0; 4][..]));
        dealloc_pd(&hca, u32::from_be_bytes(*output[8..].first_chunk().unwrap())).unwrap();
    }
    hca.shutdown();
}

#[test]
fn reserved_bits_of_a_context_are_random_and_its_fields_are_right() {
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    let mut input = QueryNicVportContextIn::default();
    let mut query = || {
        let bytes = input.as_mut_bytes();
        bytes[..2].copy_from_slice(&Opcode::QUERY_NIC_VPORT_CONTEXT.0.to_be_bytes());
        hca.commands.execute(bytes, QueryNicVportContextOut::SIZE).unwrap()
    };
    let plain = query();
    faulty.apply("seed = 3\n[[fault]]\nkind = \"reserved_bits\"");
    let random = query();
    let context = |output: &[u8]| {
        let output = QueryNicVportContextOut::ref_from_bytes(output).unwrap();
        let context = output.nic_vport_context();
        let mac = context.permanent_address();
        let guids = (context.system_image_guid(), context.port_guid(), context.node_guid());
        assert_eq!((output.status(), output.syndrome()), (0, 0));
        (
            guids,
            context.mtu(),
            context.roce_en(),
            mac.mac_addr_47_32(),
            mac.mac_addr_31_0(),
        )
    };
    assert_eq!(context(&random), context(&plain));
    let behind_the_header = plain
        .iter()
        .zip(&random)
        .skip(8)
        .filter(|(plain, random)| plain != random);
    assert!(behind_the_header.count() > 32);
    hca.shutdown();
}

#[test]
fn reserved_bits_of_capabilities_are_random_and_the_capabilities_are_right() {
    /// Offset of the capabilities in the output.
    const CAPABILITY: usize = 16;
    fn check<T: Layout>(faulty: &Faulty, hca: &Hca, group: u16) {
        let mut input = QueryHcaCapIn::default();
        // The maximum.
        input.set_op_mod(group << 1);
        input.set_opcode(Opcode::QUERY_HCA_CAP.0);
        let query = || {
            hca.commands
                .execute(input.as_bytes(), QueryHcaCapOut::SIZE)
                .unwrap()
                .split_off(CAPABILITY)
        };
        faulty.apply("");
        let plain = query();
        faulty.apply("seed = 3\n[[fault]]\nkind = \"reserved_bits\"");
        let (mut random, mut declared) = (query(), vec![0; plain.len()]);
        for field in T::FIELDS {
            for bit in field.offset..field.offset + field.width {
                let value = layout::get(&plain, bit, 1);
                if field.inner.is_none() {
                    assert_eq!(layout::get(&random, bit, 1), value, "{} of {}", field.name, T::IFC);
                }
                layout::set(&mut declared, bit, 1, 1);
            }
        }
        for (byte, declared) in random.iter_mut().zip(&declared) {
            *byte &= !declared;
        }
        let reserved = T::SIZE * 8 - declared.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
        let ones: usize = random.iter().map(|byte| byte.count_ones() as usize).sum();
        assert!(ones > reserved / 4, "{ones} of {reserved} of {}", T::IFC);
        assert!(random[T::SIZE..].iter().all(|byte| *byte == 0), "behind {}", T::IFC);
    }
    let faulty = Faulty::new();
    let hca = Hca::boot(&faulty.machine);
    check::<CmdHcaCap>(&faulty, &hca, 0);
    check::<PerProtocolNetworkingOffloadCaps>(&faulty, &hca, 1);
    check::<AtomicCaps>(&faulty, &hca, 3);
    check::<RoceCap>(&faulty, &hca, 4);
    check::<FlowTableNicCap>(&faulty, &hca, 7);
    hca.shutdown();
}

#[test]
fn the_driver_boots_with_random_reserved_bits() {
    let faulty = Faulty::new();
    faulty.apply("[[fault]]\nkind = \"reserved_bits\"");
    Hca::boot(&faulty.machine).shutdown();
    assert!(faulty.strikes() > 20);
}
