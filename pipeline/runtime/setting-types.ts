/** The types a setting can have: `parse` throws an Error whose message completes "NAME …". */
export interface SettingType<T> {
  readonly label: string;
  parse(text: string): T;
}

function fail(expectation: string): never {
  throw new Error(expectation);
}

export const text: SettingType<string> = { label: 'text', parse: (value) => value || fail('must not be empty') };
export const path: SettingType<string> = { label: 'path', parse: text.parse };

/** Names that go into NATS subjects, Postgres identifiers and file names alike. */
export const name: SettingType<string> = {
  label: 'name',
  parse: (value) =>
    /^[A-Za-z_][A-Za-z0-9_-]{0,47}$/.test(value) ? value : fail('must be letters, digits, _ or -, not starting with a digit, at most 48'),
};

export const bool: SettingType<boolean> = {
  label: 'true or false',
  parse: (value) => (/^(1|true|yes|on)$/i.test(value) ? true : /^(0|false|no|off)$/i.test(value) ? false : fail('must be true or false')),
};

export const port: SettingType<number> = {
  label: 'port',
  parse: (value) => (/^\d{1,5}$/.test(value) && Number(value) < 65_536 ? Number(value) : fail('must be a port, 0 to 65535')),
};

export function count(min: number, max: number): SettingType<number> {
  return {
    label: `whole number, ${min} to ${max}`,
    parse: (value) =>
      /^\d{1,15}$/.test(value) && Number(value) >= min && Number(value) <= max
        ? Number(value)
        : fail(`must be a whole number from ${min} to ${max}`),
  };
}

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds, written `250ms`, `30s`, `5m`, `12h`, `7d`, or `0`. */
export const duration: SettingType<number> = {
  label: 'duration',
  parse: (value) => {
    const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(value);
    if (match) return Number(match[1]) * (durationUnits[match[2]!] ?? fail('has an unknown unit'));
    return value === '0' ? 0 : fail('must be a duration like 250ms, 30s, 5m, 12h or 7d');
  },
};

const byteUnits: Readonly<Record<string, number>> = { '': 1, B: 1, KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4 };

/** Bytes, written `512`, `64MB`, `1GB` (powers of 1024). */
export const bytes: SettingType<number> = {
  label: 'size',
  parse: (value) => {
    const match = /^(\d{1,12})\s*(B|KB|MB|GB|TB)?$/i.exec(value);
    return match ? Number(match[1]) * (byteUnits[(match[2] ?? '').toUpperCase()] ?? 1) : fail('must be a size like 512, 64MB or 1GB');
  },
};

export const list: SettingType<readonly string[]> = {
  label: 'comma-separated list',
  parse: (value) =>
    value
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean),
};

/** Items `name=requests a minute/requests at once`, each name once. */
export const tiers: SettingType<readonly string[]> = {
  label: 'list of name=a minute/at once',
  parse: (value) => {
    const items = list.parse(value);
    const names = items.map((item) => /^([a-z][a-z0-9_-]{0,31})=[1-9]\d{0,8}\/[1-9]\d{0,5}$/.exec(item)?.[1]);
    if (items.length === 0 || names.includes(undefined) || new Set(names).size < names.length)
      fail('must be a list like standard=600/16,high=6000/64, with each name once');
    return items;
  },
};

export function choice<const T extends string>(...values: readonly T[]): SettingType<T> {
  return {
    label: values.join(' | '),
    parse: (value) => values.find((known) => known === value) ?? fail(`must be one of ${values.join(', ')}`),
  };
}

export function url(...protocols: readonly string[]): SettingType<string> {
  return {
    label: `${protocols[0]} URL`,
    parse: (value) => {
      const parsed = URL.canParse(value) ? new URL(value) : fail(`must be a URL like ${protocols[0]}://host:port`);
      return protocols.includes(parsed.protocol.slice(0, -1))
        ? value
        : fail(`must begin with ${protocols.map((p) => `${p}://`).join(' or ')}`);
    },
  };
}

/** A BCP 47 tag that this program knows number formats of. */
export const locale: SettingType<string> = {
  label: 'locale',
  parse: (value) => {
    try {
      if (Intl.NumberFormat.supportedLocalesOf(value).length > 0) return value;
    } catch {
      // Not even a tag.
    }
    return fail('must be a locale like en, de-CH or fr');
  },
};

/** Whom others can ask about this server. */
export const contact: SettingType<string> = {
  label: 'mailto: or https URL',
  parse: (value) =>
    /^(?:mailto:[^\s@]+@[^\s@]+|https:\/\/\S+)$/i.test(value)
      ? value
      : fail('must be a URL like mailto:ops@example.com or https://example.com'),
};

export function optional<T>(type: SettingType<T>): SettingType<T | undefined> {
  return { label: type.label, parse: (value) => (value === '' ? undefined : type.parse(value)) };
}
