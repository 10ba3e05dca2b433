declare const STASIS_VERSION: string | undefined;
declare const STASIS_COMMIT: string | undefined;

/** Set by the build; `0.0.0-source` when run from the sources. */
export const version = typeof STASIS_VERSION === 'string' ? STASIS_VERSION : '0.0.0-source';
export const commit = typeof STASIS_COMMIT === 'string' ? STASIS_COMMIT : 'unknown';
/** Which program this is: also builds of one version differ. */
export const programVersion = `${version} (${commit})`;
