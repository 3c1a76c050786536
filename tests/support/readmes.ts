/**
 * All README files of the project, found by walking its folders.
 *
 * @module
 */
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
const MARK = /\((takes long|needs jsr\.io|needs Docker)\):$/;
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
