//! Records of the timeline, decoded from the bytes of the ring buffer.

use bytemuck::{AnyBitPattern, try_pod_read_unaligned};
use sandscope_ebpf::event::{
    Block, Exec, Exit, Frame, Header, Kind, KvmEntry, KvmExit, KvmHaltPoll, KvmHaltWake, KvmMmio, KvmPio,
    KvmUserspaceExit, Listen, Object, Sample, Switch, Syscall, TaskNew, Traps, WaitStack, Wake,
};

/// One record, by kind.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each variant carries the type that documents it")]
pub enum Record {
    TaskNew(TaskNew),
    Exec(Box<Exec>),
    Exit(Exit),
    Switch(Switch),
    Wake(Wake),
    Syscall(Syscall),
    KvmEntry(KvmEntry),
    KvmExit(KvmExit),
    KvmUserspaceExit(KvmUserspaceExit),
    KvmPio(KvmPio),
    KvmMmio(KvmMmio),
    KvmHaltWake(KvmHaltWake),
    KvmHaltPoll(KvmHaltPoll),
    Listen(Listen),
    Block(Block),
    Frame(Frame),
    Traps(Traps),
    Object(Box<Object>),
    WaitStack(Box<WaitStack>),
    Sample(Box<Sample>),
}

/// Bytes that are no record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header.
    #[error("a record of {0} bytes is shorter than its header")]
    NoHeader(usize),
    /// A kind that this program does not know.
    #[error("a record of unknown kind {0}")]
    UnknownKind(u8),
    /// Not as long as its kind should be.
    #[error("a record of kind {kind:?} has {length} bytes")]
    Length {
        /// What the header says.
        kind: Kind,
        /// Bytes that came.
        length: usize,
    },
}

impl Record {
    /// Decodes one record.
    ///
    /// # Errors
    /// When the bytes are not exactly one record of a known kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: Header = bytes
            .get(..size_of::<Header>())
            .and_then(|head| try_pod_read_unaligned(head).ok())
            .ok_or(Malformed::NoHeader(bytes.len()))?;
        let kind = *Kind::ALL.get(usize::from(header.kind)).ok_or(Malformed::UnknownKind(header.kind))?;
        fn read<T: AnyBitPattern>(kind: Kind, bytes: &[u8]) -> Result<T, Malformed> {
            try_pod_read_unaligned(bytes).map_err(|_| Malformed::Length { kind, length: bytes.len() })
        }
        Ok(match kind {
            Kind::TaskNew => Self::TaskNew(read(kind, bytes)?),
            // Six times the size of the next largest, and rare.
            Kind::Exec => Self::Exec(Box::new(read(kind, bytes)?)),
            Kind::Exit => Self::Exit(read(kind, bytes)?),
            Kind::Switch => Self::Switch(read(kind, bytes)?),
            Kind::Wake => Self::Wake(read(kind, bytes)?),
            Kind::Syscall => Self::Syscall(read(kind, bytes)?),
            Kind::KvmEntry => Self::KvmEntry(read(kind, bytes)?),
            Kind::KvmExit => Self::KvmExit(read(kind, bytes)?),
            Kind::KvmUserspaceExit => Self::KvmUserspaceExit(read(kind, bytes)?),
            Kind::KvmPio => Self::KvmPio(read(kind, bytes)?),
            Kind::KvmMmio => Self::KvmMmio(read(kind, bytes)?),
            Kind::KvmHaltWake => Self::KvmHaltWake(read(kind, bytes)?),
            Kind::KvmHaltPoll => Self::KvmHaltPoll(read(kind, bytes)?),
            Kind::Listen => Self::Listen(read(kind, bytes)?),
            Kind::Block => Self::Block(read(kind, bytes)?),
            Kind::Frame => Self::Frame(read(kind, bytes)?),
            Kind::Traps => Self::Traps(read(kind, bytes)?),
            Kind::Object => Self::Object(Box::new(read(kind, bytes)?)),
            Kind::WaitStack => Self::WaitStack(Box::new(read(kind, bytes)?)),
            Kind::Sample => Self::Sample(Box::new(read(kind, bytes)?)),
        })
    }

    /// What every record starts with.
    pub fn header(&self) -> &Header {
        match self {
            Self::TaskNew(record) => &record.header,
            Self::Exec(record) => &record.header,
            Self::Exit(record) => &record.header,
            Self::Switch(record) => &record.header,
            Self::Wake(record) => &record.header,
            Self::Syscall(record) => &record.header,
            Self::KvmEntry(record) => &record.header,
            Self::KvmExit(record) => &record.header,
            Self::KvmUserspaceExit(record) => &record.header,
            Self::KvmPio(record) => &record.header,
            Self::KvmMmio(record) => &record.header,
            Self::KvmHaltWake(record) => &record.header,
            Self::KvmHaltPoll(record) => &record.header,
            Self::Listen(record) => &record.header,
            Self::Block(record) => &record.header,
            Self::Frame(record) => &record.header,
            Self::Traps(record) => &record.header,
            Self::Object(record) => &record.header,
            Self::WaitStack(record) => &record.header,
            Self::Sample(record) => &record.header,
        }
    }

    /// Whether the record tells something about a scope.
    pub fn concerns(&self, scope: u16) -> bool {
        match self {
            Self::Switch(switch) => switch.header.scope == scope || switch.next_scope == scope,
            other => other.header().scope == scope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::{Zeroable, bytes_of};

    #[test]
    fn a_record_survives_the_way_through_bytes() {
        let mut exit = KvmExit::zeroed();
        exit.header = Header { at_ns: 5, tid: 7, scope: 2, kind: Kind::KvmExit as u8, flags: 0 };
        exit.reason = 0x7b;
        let Ok(Record::KvmExit(decoded)) = Record::decode(bytes_of(&exit)) else { panic!("not a KvmExit") };
        assert_eq!((decoded.reason, decoded.header.at_ns, decoded.header.tid), (0x7b, 5, 7));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert_eq!(Record::decode(&[0; 3]).unwrap_err(), Malformed::NoHeader(3));
        let mut header = Header::zeroed();
        header.kind = 200;
        assert_eq!(Record::decode(bytes_of(&header)).unwrap_err(), Malformed::UnknownKind(200));
        header.kind = Kind::Switch as u8;
        assert_eq!(
            Record::decode(bytes_of(&header)).unwrap_err(),
            Malformed::Length { kind: Kind::Switch, length: size_of::<Header>() }
        );
    }
}
