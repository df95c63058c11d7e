use crate::harness::*;
use portcullis_core::event::*;
use bytes::Bytes;
#[test]
fn drive_real_plugins() {
    let dir = "/root/.cache/portcullis/target/plugins";
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for path in names {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let config = std::env::var(format!("CFG_{}", name.replace('-', "_"))).unwrap_or_default();
        let t = std::time::Instant::now();
        let module = match engine().load(&name, &bytes) { Ok(m) => m, Err(e) => { println!("== {name}: LOAD {e}"); continue } };
        println!("== {name}: loaded in {:?} {:?} initial memory {}", t.elapsed(), module.exports(), module.initial_memory());
        let mut spec = spec(&guest(""));
        spec.module = module;
        spec.memory = 16 << 20;
        spec.roots[0].configuration = Bytes::from(config);
        let mut worker = Worker::of(vec![spec], &Default::default());
        let mut out = String::new();
        let log = logged(|| {
            let t = std::time::Instant::now();
            match worker.vms.warm_up(&mut worker.exchanges) { Ok(()) => {}, Err(e) => { out = format!("START {e}"); return } }
            out += &format!("started in {:?}\n", t.elapsed());
            let id = worker.request(End::No);
            worker.feed(id, Event::Request(Part::Body(Bytes::from_static(b"{\"a\":1}"), End::Yes)));
            out += &worker.effects(id);
            worker.respond(id);
            out += &worker.effects(id);
            worker.end(id);
            let t = std::time::Instant::now();
            let mut n = 0;
            while n < 1000 { let id = worker.request(End::Yes); worker.respond(id); worker.effects(id); worker.end(id); n += 1; }
            out += &format!("per request {:?}; live {} contexts\n", t.elapsed() / 1000, worker.vms.cells()[0].live.get());
        });
        let lines: Vec<&str> = log.lines().take(6).collect();
        println!("{out}--- log\n{}\n", lines.join("\n"));
    }
}
