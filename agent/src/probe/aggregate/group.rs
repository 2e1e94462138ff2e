//! Follows the control groups of targets: who joins one or leaves it.

use crate::probe::{Definition, Event::Raw, Hook};

pub(super) const PROBE: Definition = Definition {
    name: "group",
    required: false,
    hooks: |_| &[Hook { program: "cgroup_attach_task", event: Raw("cgroup_attach_task") }],
    globals: |kernel| {
        Ok(vec![
            ("CGROUP_ROOT", kernel.types.offset("cgroup", "root")?),
            ("CGROUP_ROOT_HIERARCHY_ID", kernel.types.offset("cgroup_root", "hierarchy_id")?),
        ])
    },
};
