//! The cost of an event of the execution trace: to a device that is not traced, and to one that is.

use std::hint;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vhost_daemon::trace::{Tracer, set_flight_recorder};
use vhost_nic::hca::nic_event::NicEvent;

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    let tracer = Tracer::new(1);
    for (name, on) in [("off", false), ("on", true)] {
        set_flight_recorder(on);
        group.bench_function(name, |b| {
            let mut psn = 0_u32;
            b.iter(|| {
                psn = psn.wrapping_add(1);
                tracer.record(NicEvent::Wqe, hint::black_box(0x40), || {
                    hint::black_box([psn, 8, psn, 1])
                });
            });
        });
    }
    set_flight_recorder(false);
}

criterion_group!(benches, record);
criterion_main!(benches);
