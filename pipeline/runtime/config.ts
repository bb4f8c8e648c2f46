import { suggestion } from '../../schemas/nearest.ts';
import { usage } from './errors.ts';
import { settings, type SettingName, type Settings } from './settings.ts';
import type { SettingType } from './setting-types.ts';

type ValueOf<N extends SettingName> = Settings[N]['type'] extends SettingType<infer T> ? T : never;

/** Where a value came from. */
export type Origin = 'default' | 'environment' | 'argument' | 'local';

/** The effective configuration: one value a setting. */
export type Config = { readonly [N in SettingName]: ValueOf<N> } & {
  /** Where each value came from, for `headwater config` and for defaults that may give way. */
  readonly provenance: Readonly<Record<SettingName, Origin>>;
};

type Overrides = { readonly [N in SettingName]?: ValueOf<N> | undefined };

const names = Object.keys(settings) as SettingName[];
const known = new Set<string>(names.map((name) => settings[name].env));

/**
 * Reads the configuration from an environment. All faults are reported at once.
 * @throws HeadwaterError `bad_config` (exit 2)
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>, args: Overrides = {}): Config {
  const faults: string[] = [];
  const origins = {} as Record<SettingName, Origin>;
  const values: Record<string, unknown> = { provenance: origins };
  for (const name of names) {
    const { env: variable, type, default: fallback } = settings[name];
    const given = env[variable];
    origins[name] = args[name] !== undefined ? 'argument' : given !== undefined && given !== '' ? 'environment' : 'default';
    try {
      values[name] = args[name] ?? (given !== undefined && given !== '' ? type.parse(given) : fallback);
    } catch (error) {
      faults.push(`${variable} ${(error as Error).message}`);
    }
  }
  for (const variable of Object.keys(env)) {
    if (variable.startsWith('HEADWATER_') && !known.has(variable)) faults.push(unknownVariable(variable));
  }
  if (faults.length > 0) throw usage('bad_config', faults.join('\n'), '`headwater config` lists every setting with its type and default');
  return values as Config;
}

/** The configuration with values that were found out at run time: the URLs of local servers, say. */
export function withLocal(config: Config, values: Overrides): Config {
  const origins = { ...config.provenance };
  for (const name of Object.keys(values) as SettingName[]) origins[name] = 'local';
  return { ...config, ...values, provenance: origins } as Config;
}

function unknownVariable(variable: string): string {
  return `${variable} is not a setting${suggestion(variable, [...known])}`;
}
