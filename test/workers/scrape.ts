/** Reads what a process answers to Prometheus, by the text format's own rules. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const line = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;

export interface Scraped {
  readonly text: string;
  readonly samples: readonly Sample[];
  /** Each metric with its type, by its name without `_bucket`, `_sum` and `_count`. */
  readonly types: ReadonlyMap<string, string>;
  /** The value of the one series with this name and these labels; undefined when there is none. */
  value(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

/** Parses a scrape; a line that is neither a comment nor a sample is an error. */
export function parseScrape(text: string): Scraped {
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map((match) => [match[1] ?? '', match[2] ?? '']));
  const samples = text
    .split('\n')
    .filter((one) => one !== '' && !one.startsWith('#'))
    .map((one): Sample => {
      const match = line.exec(one);
      if (!match) throw new Error(`not a sample: ${one}`);
      const labels = Object.fromEntries([...(match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((label) => [label[1] ?? '', label[2] ?? '']));
      return { name: match[1] ?? '', labels, value: Number(match[3]?.replace('Inf', 'Infinity')) };
    });
  return {
    text,
    samples,
    types,
    value: (name, labels = {}) => samples.find((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value))?.value,
  };
}

/** Scrapes `http://<listen>/metrics`. */
export async function scrape(listen: string): Promise<Scraped> {
  const response = await fetch(`http://${listen}/metrics`, { signal: AbortSignal.timeout(10_000) });
  if (response.status !== 200) throw new Error(`a scrape was answered ${response.status}: ${await response.text()}`);
  return parseScrape(await response.text());
}
