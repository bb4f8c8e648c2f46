import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parse } from 'yaml';
import { settings } from '../../pipeline/runtime/settings.ts';
import { projectFile } from '../../deploy/local/paths.ts';

interface Service {
  image: string;
  environment: Record<string, string | number>;
  ports: string[];
}

describe('deploy/compose.yaml', () => {
  const { services } = parse(readFileSync(projectFile('deploy/compose.yaml'), 'utf8'), { merge: true }) as {
    services: Record<string, Service>;
  };

  it('publishes ports on loopback only, from pinned official images', () => {
    for (const [name, { image, ports }] of Object.entries(services)) {
      expect(image, name).to.match(/^[a-z]+:\d/);
      for (const port of ports) expect(port, name).to.match(/^127\.0\.0\.1:/);
    }
  });

  it('takes every secret from the environment', () => {
    for (const { environment } of Object.values(services)) {
      for (const [variable, value] of Object.entries(environment)) {
        if (/PASSWORD|AUTH$|_URL$/.test(variable)) expect(String(value), variable).to.contain('${HEADWATER_SECRET');
      }
    }
  });

  it('sets every variable that nats.conf reads, and only settings that exist', () => {
    const wanted = new Set([...readFileSync(projectFile('nats.conf'), 'utf8').matchAll(/: \$(NATS_\w+)/g)].map((match) => match[1]));
    expect(new Set(Object.keys(services['nats']!.environment))).to.deep.equal(wanted);
    const known = Object.values(settings).map(({ env }): string => env);
    expect(known).to.include.members(Object.keys(services['headwater']!.environment));
  });
});
