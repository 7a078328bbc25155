//! Any sequence of commands leaves consistent tables, in which every classification ends.

use super::*;
use crate::hca::refcount::RefCount;

#[derive(Debug, Clone)]
enum Command {
    CreateTable {
        level: u8,
        log_size: u8,
        miss: Option<u32>,
    },
    ModifyTable {
        table: u32,
        miss: Option<u32>,
    },
    DestroyTable {
        table: u32,
    },
    SetRoot {
        table: Option<u32>,
    },
    CreateGroup {
        table: u32,
        start: u32,
        length: u32,
        enable: u8,
    },
    DestroyGroup {
        table: u32,
        group: u32,
    },
    CreateEntry {
        table: u32,
        group: u32,
        index: u32,
        actions: Wanted,
    },
    ModifyEntry {
        table: u32,
        index: u32,
        mask: u8,
        actions: Wanted,
    },
    DeleteEntry {
        table: u32,
        index: u32,
    },
    Alloc {
        count: u32,
    },
    Dealloc {
        id: u32,
    },
}

#[derive(Debug, Clone)]
struct Wanted {
    action: u16,
    tables: Vec<u32>,
    tirs: usize,
    counters: Vec<u32>,
    ignore_level: bool,
}

fn commands() -> impl Strategy<Value = Command> {
    let id = || 1..5u32;
    let wanted = || {
        let lists = (
            prop::collection::vec(id(), 0..3),
            0..3usize,
            prop::collection::vec(id(), 0..2),
        );
        (0..16u16, lists, any::<bool>()).prop_map(|(action, (tables, tirs, counters), ignore_level)| Wanted {
            action,
            tables,
            tirs,
            counters,
            ignore_level,
        })
    };
    prop_oneof![
        1 => (0..4u8, 0..4u8, prop::option::of(id())).prop_map(|(level, log_size, miss)| Command::CreateTable {
            level,
            log_size,
            miss
        }),
        1 => (id(), prop::option::of(id())).prop_map(|(table, miss)| Command::ModifyTable { table, miss }),
        1 => id().prop_map(|table| Command::DestroyTable { table }),
        1 => prop::option::of(id()).prop_map(|table| Command::SetRoot { table }),
        1 => (id(), 0..8u32, 0..4u32, any::<u8>()).prop_map(|(table, start, length, enable)| Command::CreateGroup {
            table,
            start,
            length,
            enable
        }),
        1 => (id(), id()).prop_map(|(table, group)| Command::DestroyGroup { table, group }),
        4 => (id(), id(), 0..8u32, wanted()).prop_map(|(table, group, index, actions)| Command::CreateEntry {
            table,
            group,
            index,
            actions
        }),
        1 => (id(), 0..8u32, 0..16u8, wanted()).prop_map(|(table, index, mask, actions)| Command::ModifyEntry {
            table,
            index,
            mask,
            actions
        }),
        1 => (id(), 0..8u32).prop_map(|(table, index)| Command::DeleteEntry { table, index }),
        1 => (0..4u32).prop_map(|count| Command::Alloc { count }),
        1 => id().prop_map(|id| Command::Dealloc { id }),
    ]
}

fn actions(wanted: Wanted, references: &RefCount) -> Actions<u32> {
    let tables = wanted.tables.into_iter().map(Destination::Table);
    let destinations: Vec<_> = tables.chain(vec![Destination::Tir(1); wanted.tirs]).collect();
    Actions {
        action: wanted.action,
        flow_tag: 5,
        held: vec![references.acquire()],
        destinations,
        counters: wanted.counters,
        ignore_level: wanted.ignore_level,
    }
}

fn run(flows: &Flows, references: &RefCount, command: Command) -> Result<()> {
    let miss = |table: Option<u32>| table.map_or(Miss::Default, Miss::Table);
    let criteria = udp_port(0xffff);
    match command {
        Command::CreateTable {
            level,
            log_size,
            miss: to,
        } => flows
            .create_table(NewTable {
                table_type: NIC_RX,
                level,
                log_size,
                miss: miss(to),
            })
            .map(drop),
        Command::ModifyTable { table, miss: to } => flows.modify_table(NIC_RX, table, miss(to)),
        Command::DestroyTable { table } => flows.destroy_table(NIC_RX, table),
        Command::SetRoot { table } => flows.set_root(NIC_RX, table),
        Command::CreateGroup {
            table,
            start,
            length,
            enable,
        } => try_group(flows, table, start, start + length, &criteria, enable).map(drop),
        Command::DestroyGroup { table, group } => flows.destroy_group(NIC_RX, table, group),
        Command::CreateEntry {
            table,
            group,
            index,
            actions: wanted,
        } => try_entry(flows, (table, group, index), &udp_port(1), actions(wanted, references)),
        Command::ModifyEntry {
            table,
            index,
            mask,
            actions: wanted,
        } => flows.modify_entry(NIC_RX, table, index, mask, actions(wanted, references)),
        Command::DeleteEntry { table, index } => flows.delete_entry(NIC_RX, table, index),
        Command::Alloc { count } => flows.alloc_counters(count).map(drop),
        Command::Dealloc { id } => flows.dealloc_counters(id),
    }
}

proptest! {
    #[test]
    fn any_sequence_of_commands_can_be_taken_back(sequence in prop::collection::vec(commands(), 1..60)) {
        let (flows, references) = (Flows::new(&Arc::default()), RefCount::default());
        let (frame, mut deliveries) = (frame(MINE, 1), Vec::new());
        // Objects to start from, so that many commands succeed.
        for level in 1..4 {
            let table = table(&flows, level, 3, Miss::Default);
            flows.set_root(NIC_RX, Some(table)).unwrap();
            group(&flows, table, 0, 5, &udp_port(0xffff));
        }
        let mut entries = 0;
        for command in sequence {
            let before = flows.object_counts();
            if run(&flows, &references, command.clone()).is_err() {
                prop_assert_eq!(flows.object_counts(), before, "{:?} failed and changed something", command);
            } else if matches!(command, Command::CreateEntry { .. }) {
                entries += 1;
            } else if matches!(command, Command::DeleteEntry { .. }) {
                entries -= 1;
            }
            prop_assert_eq!(flows.object_counts()["flow_table_entry"], entries);
            flows.classify(NIC_RX, &FrameView::new(&frame).unwrap(), &mut deliveries);
        }
        // Every entry holds one reference, and nothing else does.
        prop_assert_eq!(references.count() as usize, flows.object_counts()["flow_table_entry"]);
        for table in 1..100 {
            for index in 0..8 {
                let _ = flows.delete_entry(NIC_RX, table, index);
            }
            for group in 1..100 {
                let _ = flows.destroy_group(NIC_RX, table, group);
            }
            let _ = flows.modify_table(NIC_RX, table, Miss::Default);
        }
        for id in 1..400 {
            let _ = flows.destroy_table(NIC_RX, id);
            let _ = flows.dealloc_counters(id);
        }
        prop_assert!(flows.object_counts().values().all(|&count| count == 0), "{:?}", flows.object_counts());
        prop_assert_eq!(references.count(), 0);
    }
}
