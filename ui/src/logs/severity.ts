// Severities of log streams, from least to worst; the order in which bars are stacked.
export const SEVERITIES = ['debug', 'info', 'notice', 'warning', 'error', 'critical'] as const;

/** The colour token of a severity; anything unknown is drawn like debug. */
export const severityColor = (s: string): string => `var(--sev-${(SEVERITIES as readonly string[]).includes(s) ? s : 'debug'})`;

/** Short words for the narrow column of the list. */
export const SEVERITY_SHORT: Record<string, string> = { debug: 'debug', info: 'info', notice: 'notice', warning: 'warn', error: 'ERROR', critical: 'CRIT' };
