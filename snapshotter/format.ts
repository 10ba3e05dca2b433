/** Version of the layout below a root dataset, on the root: raised when an older stasisd would misread it. */
export const formatProperty = 'stasis:format';
export const FORMAT = 1;
/** On a root that was received whole: until when what came by `zfs receive` came with it, in seconds since 1970. */
export const movedProperty = 'stasis:moved';
/** On the root: `<UUID> <seconds since 1970>` of each containerd whose database was lost, with commas between; see lost.ts. */
export const lostProperty = 'stasis:lost';
