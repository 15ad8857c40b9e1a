//! Ledgers that are cut short, damaged, written anew, and kept from earlier versions.

use super::*;

fn id(number: u64) -> NodeId {
    NodeId::from_kernel(number)
}

fn tree(number: u8) -> TreeId {
    TreeId::from_bytes([number; 32])
}

fn file(number: u64, directory: u64, entry: u32) -> Record<'static> {
    let location = Location { directory: id(directory), tree: tree(7), entry };
    Record::File { id: id(number), location }
}

fn every_kind() -> Vec<Record<'static>> {
    vec![
        Record::Directory { id: id(5), parent: id(1), name: b"usr" },
        file(10, 5, 0),
        file(11, 5, 9),
        file(12, 1, 0),
        Record::Lookups { id: id(12), count: 7 },
        Record::Forgotten(id(11)),
        Record::Held { directory: id(5), tree: tree(7), root: Some(tree(9)) },
        Record::Held { directory: id(5), tree: tree(7), root: None },
        file(13, 5, 1),
        Record::Reach(3),
    ]
}

/// Kinds that came later, on mounts that pass through.
fn every_kind_of_opens() -> Vec<Record<'static>> {
    let blob = BlobRef {
        key: BlobKey::from_bytes([4; 16]),
        digest: Digest::from_bytes([5; 32]),
        size: 300_000,
    };
    vec![
        Record::Backed { id: 2, blob },
        Record::Opens { id: id(13), reading: Reading::Passed(2), count: 3 },
        Record::Opens { id: id(10), reading: Reading::Asked, count: 1 },
        Record::Opens { id: id(13), reading: Reading::Passed(2), count: 0 },
        Record::Unbacked(2),
    ]
}

fn said(told: &str, telling: Option<&str>) -> Said {
    let telling = telling.map(Into::into);
    Said { about: b"{}".into(), told: told.into(), telling }
}

fn temporary() -> File {
    tempfile::tempfile().unwrap()
}

/// How each record prints, since records borrow from what is read.
fn read(file: &File) -> io::Result<(Ledger, Vec<String>)> {
    let mut records = Vec::new();
    let ledger = Ledger::open(file.try_clone()?, |record| {
        records.push(format!("{record:?}"));
        Some(())
    })?;
    Ok((ledger, records))
}

fn printed(records: &[Record<'_>]) -> Vec<String> {
    records.iter().map(|record| format!("{record:?}")).collect()
}

#[test]
fn what_was_noted_is_read_back_and_what_was_cut_short_is_not() {
    let file = temporary();
    let mut ledger = Ledger::create(file.try_clone().unwrap(), Said::default()).unwrap();
    let records = [
        &[Record::About(b"{}"), Record::Showing(b"one"), Record::Told],
        &every_kind()[..],
        &every_kind_of_opens(),
        &[Record::Showing(b"")],
    ]
    .concat();
    let mut ends = vec![ledger.end];
    for record in &records {
        ledger.note(record);
        ledger.flush().unwrap();
        ends.push(ledger.end);
    }
    let mut all = vec![0; usize::try_from(ledger.end).unwrap()];
    file.read_exact_at(&mut all, 0).unwrap();
    for len in HEADER_LEN..=ledger.end {
        let file = temporary();
        file.write_all_at(&all[..usize::try_from(len).unwrap()], 0).unwrap();
        let whole = ends.iter().filter(|end| **end <= len).count() - 1;
        let (mut successor, seen) = read(&file).unwrap();
        assert_eq!(seen, printed(&records[..whole]), "cut at {len}");
        // A successor goes on where its predecessor was cut off.
        successor.note(&file_record());
        successor.flush().unwrap();
        let (_, seen) = read(&file).unwrap();
        assert_eq!(seen.last(), printed(&[file_record()]).last(), "cut at {len}");
        assert_eq!(seen.len(), whole + 1);
    }
}

fn file_record() -> Record<'static> {
    file(99, 98, 97)
}

/// What an earlier version has written is read, is as docs/mount.md tells, and is
/// what is written today. `UPDATE_GOLDEN=1` keeps that.
#[test]
fn the_format_is_the_one_that_is_kept() {
    let about = [Record::About(b"{\"run\":1}"), Record::Showing(b"[1]"), Record::Told];
    let records = [&about[..], &every_kind()[..], &[Record::Showing(b"[2]")]].concat();
    let file = temporary();
    let mut ledger = Ledger::create(file.try_clone().unwrap(), Said::default()).unwrap();
    records.iter().for_each(|record| ledger.note(record));
    ledger.flush().unwrap();
    let mut written = vec![0; usize::try_from(ledger.end).unwrap()];
    file.read_exact_at(&mut written, 0).unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ledger-2");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &written).unwrap();
    }
    let kept = std::fs::read(&golden).unwrap();
    assert!(written == kept, "{} is another format", golden.display());

    let number = |number: u64| number.to_le_bytes().to_vec();
    let place = |directory| [vec![3], number(directory), vec![7; 32]].concat();
    let file_of = |id, entry: u8| [vec![4], number(id), vec![entry, 0, 0, 0]].concat();
    let text = |kind, text: &[u8]| [vec![kind], number(text.len() as u64), text.into()].concat();
    let documented = [
        b"CrnLdgr2".to_vec(),
        number(16),
        text(1, b"{\"run\":1}"),
        text(9, b"[1]"),
        vec![10],
        [vec![2], number(5), number(1), vec![3], b"usr".to_vec()].concat(),
        [place(5), file_of(10, 0), file_of(11, 9)].concat(),
        [place(1), file_of(12, 0)].concat(),
        [vec![11], number(12), vec![7, 0, 0, 0]].concat(),
        [vec![5], number(11)].concat(),
        [place(5), vec![6], vec![9; 32]].concat(),
        vec![7],
        file_of(13, 1),
        vec![8, 3, 0, 0, 0],
        text(9, b"[2]"),
    ];
    assert_eq!(kept, documented.concat());

    let file = temporary();
    file.write_all_at(&kept, 0).unwrap();
    let (ledger, seen) = read(&file).unwrap();
    assert_eq!(seen, printed(&records));
    assert_eq!(ledger.said.about, b"{\"run\":1}");
    assert_eq!((&ledger.said.told[..], ledger.said.telling), (&b"[1]"[..], Some(b"[2]".into())));
}

#[test]
fn opens_are_noted_as_the_format_says() {
    let file = temporary();
    let mut ledger = Ledger::create(file.try_clone().unwrap(), Said::default()).unwrap();
    every_kind_of_opens().iter().for_each(|record| ledger.note(record));
    ledger.flush().unwrap();
    let mut written = vec![0; usize::try_from(ledger.end - HEADER_LEN).unwrap()];
    file.read_exact_at(&mut written, HEADER_LEN).unwrap();
    let number = |number: u64| number.to_le_bytes().to_vec();
    let opens = |id, backing: u8, count: u8| {
        [vec![14], number(id), vec![backing, 0, 0, 0, count, 0, 0, 0]].concat()
    };
    let documented = [
        [vec![12, 2, 0, 0, 0], vec![4; 16], vec![5; 32], number(300_000)].concat(),
        opens(13, 2, 3),
        opens(10, 0, 1),
        opens(13, 2, 0),
        vec![13, 2, 0, 0, 0],
    ];
    assert_eq!(written, documented.concat());
}

#[test]
fn what_is_written_anew_replaces_what_was_there_and_takes_no_more_memory() {
    let file = temporary();
    let mut ledger = Ledger::create(file.try_clone().unwrap(), Said::default()).unwrap();
    for round in 0..20 {
        while !ledger.is_long() {
            ledger.note(&file_record());
            ledger.flush_some().unwrap();
        }
        let records = every_kind();
        ledger.rewrite(|note| records.iter().for_each(|record| note(*record))).unwrap();
        ledger.note(&file_record());
        ledger.flush().unwrap();
        let (successor, seen) = read(&file).unwrap();
        let nodes = [&records[..], &[file_record()]].concat();
        assert!(seen.ends_with(&printed(&nodes)), "round {round}");
        assert_eq!(successor.said, ledger.said);
        let (showing, telling) = (round.to_string(), (round + 1).to_string());
        ledger.note(&Record::About(b"{}"));
        ledger.note(&Record::Showing(showing.as_bytes()));
        ledger.note(&Record::Told);
        ledger.note(&Record::Showing(telling.as_bytes()));
        assert_eq!(ledger.said, said(&showing, Some(&telling)));
    }
    assert!(file.metadata().unwrap().len() > 19 * MAX_OUTDATED);
    let kept = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512;
    assert!(kept < 2 * MAX_OUTDATED, "{kept} bytes are kept");
}

#[test]
fn what_is_no_ledger_is_refused_and_never_panics() {
    let file = temporary();
    assert!(read(&file).is_err());
    let mut ledger = Ledger::create(file.try_clone().unwrap(), Said::default()).unwrap();
    every_kind().iter().for_each(|record| ledger.note(record));
    every_kind_of_opens().iter().for_each(|record| ledger.note(record));
    ledger.flush().unwrap();
    let mut good = vec![0; usize::try_from(ledger.end).unwrap()];
    file.read_exact_at(&mut good, 0).unwrap();
    for at in 0..good.len() {
        for value in [0, 1, 12, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let file = temporary();
            file.write_all_at(&bytes, 0).unwrap();
            let result = read(&file);
            assert!(at >= 8 || value == good[at] || result.is_err(), "byte {at}");
        }
    }
    ledger.invalidate();
    assert!(read(&file).is_err());
}
