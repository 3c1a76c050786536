/**
 * All README files of the project, found by walking its folders; and what in them is generated.
 *
 * `deno run -A tests/support/readmes.ts` writes the generated parts anew.
 *
 * @module
 */
import { settingsTable } from "../../handlers/start/help.ts";
import { SETTINGS } from "../../handlers/start/settings.ts";
import { ROOT } from "./process.ts";

/** A README file. */
export interface Readme {
  /** From the top folder: `handlers/README.md`. */
  path: string;
  text: string;
  blocks: Block[];
}

/** A fenced block. */
export interface Block {
  /** Of the README file. */
  path: string;
  language: string;
  text: string;
  /** The paragraph before it says in brackets why it is not run by a test. */
  isMarked: boolean;
}

/** How a paragraph ends before a block that is not run. */
const MARK = /\((takes long|needs Docker)\):$/;
const FENCE = /((?:[^\n]+\n)+)\n*```(\w*)\n([^]*?)\n```\n/g;

/** Reads all of them, the top folder's first. */
export async function readReadmes(): Promise<Readme[]> {
  const readmes: Readme[] = [];
  for await (const path of findReadmes("")) {
    const text = await Deno.readTextFile(ROOT + path);
    const blocks = [...text.matchAll(FENCE)].map(([, before, language, text]) => ({
      path,
      language,
      text,
      isMarked: MARK.test(before.trim().replace(/\s+/g, " ")),
    }));
    if (text.match(/^```/gm)?.length !== (blocks.length * 2 || undefined)) {
      throw new Error(`${path} has a block that was not found`);
    }
    readmes.push({ path, text, blocks });
  }
  return readmes.sort((a, b) => a.path.split("/").length - b.path.split("/").length);
}

/** The blocks of a language that tests are to run. */
export async function blocksIn(language: string): Promise<Block[]> {
  return (await readReadmes()).flatMap(({ blocks }) => blocks)
    .filter((block) => block.language === language && !block.isMarked);
}

/** The text outside of blocks. */
export function proseOf({ text }: Readme): string {
  return text.replace(FENCE, "$1");
}

async function* findReadmes(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(ROOT + folder)) {
    if (name === "README.md") yield folder + name;
    const isOurs = isDirectory && !name.startsWith(".") && name !== "node_modules";
    if (isOurs) yield* findReadmes(`${folder}${name}/`);
  }
}

/** The settings that people set, in README.md. */
const EIGHT =
  /^(PORT|ALLOWED_ORIGINS|AUTH_SECRET|TRUST_PROXY|HISTORY_SIZE|DATA_FILE|REDIS_URL|WORKERS)$/;

/** A README's text with its generated parts: tables of settings, the variables that may be read. */
export function withGeneratedParts(text: string): string {
  const [head, line, ...rows] = settingsTable().split("\n");
  const few = rows.filter((row) => EIGHT.test(row.match(/\w+/)![0]));
  const variables = [...Object.keys(SETTINGS), "OTEL_DENO", "DENO_USE_WRITEV"].join(",");
  return text
    .replace(
      /(<!-- settings -->)[^]*(<!-- \/settings -->)/,
      (_, start, end) => [start, "", head, line, ...rows, "", end].join("\n"),
    )
    .replace(
      /(<!-- eight settings -->)[^]*(<!-- \/eight settings -->)/,
      (_, start, end) => [start, "", head, line, ...few, "", end].join("\n"),
    )
    .replace(/--allow-env=PORT\S*/, `--allow-env=${variables}`);
}

if (import.meta.main) {
  for (const { path, text } of await readReadmes()) {
    await Deno.writeTextFile(ROOT + path, withGeneratedParts(text));
  }
  await new Deno.Command(Deno.execPath(), { args: ["fmt", "-q"], cwd: ROOT }).output();
}
