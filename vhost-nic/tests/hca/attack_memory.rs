//! Guests that ask for more and more host memory.

use std::sync::Arc;

use mlx5_prm::command::Status;
use mlx5_prm::init_hca::{ManagePagesIn, ManagePagesOut};
use mlx5_prm::opcode::Opcode;
use mlx5_test_driver::command::{CommandError, Result};
use mlx5_test_driver::domain::alloc_pd;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::mkey::{create_mkey, destroy_mkey};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::steering::{Table, alloc_counter};
use vhost_nic::hca::memory_budget::BudgetSnapshot;
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::nic::machine_with;

/// Bytes of the budget.
const LIMIT: u64 = 4 << 20;
/// Pages given at a time, always the same, and the variant of MANAGE_PAGES.
const PAGES: usize = 1024;
const GIVE: u16 = 1;

fn guest() -> Hca {
    let machine = machine_with(&Switch::new(), 1, |config| config.memory_budget = LIMIT);
    Hca::boot(&Arc::new(machine))
}

fn memory(hca: &Hca) -> BudgetSnapshot {
    hca.machine.nic().snapshot().host_memory
}

/// Makes objects until one is refused; returns them and the refusal.
fn exhaust<T>(mut make: impl FnMut() -> Result<T>) -> (Vec<T>, CommandError) {
    let mut made = Vec::new();
    loop {
        match make() {
            Ok(object) => made.push(object),
            Err(error) => return (made, error),
        }
        assert!(made.len() < 1 << 20, "nothing bounds the number");
    }
}

#[test]
fn keys_without_end() {
    let hca = guest();
    let pd = alloc_pd(&hca).unwrap();
    let (empty, page) = (memory(&hca).used_bytes, 4096);
    // A list of 64 KiB each.
    let length = 8192 * page;
    let (keys, refusal) = exhaust(|| Region::of_one_page(&hca, pd, length, page));
    assert!(refusal.is(Status::LimitExceeded), "{refusal:?}");
    let full = memory(&hca);
    assert_eq!((full.limit_bytes, full.refused), (LIMIT, 1));
    assert_eq!(
        keys.len() as u64,
        (LIMIT - empty) / ((full.used_bytes - empty) / keys.len() as u64)
    );
    assert_eq!(keys.len(), 63);
    // Small objects go on, until there is no room for these either.
    let (small, refusal) = exhaust(|| create_mkey(&hca, pd));
    assert!(refusal.is(Status::LimitExceeded) && !small.is_empty());
    small.into_iter().for_each(|key| destroy_mkey(&hca, key).unwrap());
    keys.into_iter().for_each(|key| key.destroy(&hca).unwrap());
    assert_eq!(memory(&hca).used_bytes, empty);
}

#[test]
fn the_same_pages_given_again_and_again() {
    let hca = guest();
    let list: Vec<u8> = (0..PAGES as u64).flat_map(|page| (page << 12).to_be_bytes()).collect();
    let mut input = ManagePagesIn::default();
    input.set_input_num_entries(PAGES as u32);
    let give = || {
        let call = |list| {
            hca.commands
                .call_with::<_, ManagePagesOut>(Opcode::MANAGE_PAGES, GIVE, &input, list, 0)
        };
        call(&list).map(drop)
    };
    let before = hca.machine.nic().snapshot().pages;
    let (given, refusal) = exhaust(give);
    assert!(refusal.is(Status::LimitExceeded), "{refusal:?}");
    let held = hca.machine.nic().snapshot().pages;
    assert_eq!(held, before + given.len() * PAGES);
    assert!(held as u64 * 8 <= LIMIT, "{held} pages");
}

#[test]
fn what_is_left_at_a_reset_is_given_back() {
    let hca = guest();
    let pd = alloc_pd(&hca).unwrap();
    let table = Table::create(&hca, 1, 10).unwrap();
    table.create_group(&hca, 0..=9, &Default::default()).unwrap();
    let (counters, refusal) = exhaust(|| alloc_counter(&hca));
    assert!(refusal.is(Status::LimitExceeded) && !counters.is_empty());
    assert!(create_mkey(&hca, pd).is_err());
    hca.machine.device().reset();
    assert_eq!(memory(&hca).used_bytes, 0);
    hca.machine.enable();
    Hca::boot(&hca.machine).shutdown();
    assert_eq!(memory(&hca).used_bytes, 0);
}
