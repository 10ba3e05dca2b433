import { accessSync, constants, existsSync, statSync } from 'node:fs';

/** Looks a program up, on PATH as the environment has it. */
export function findProgram(file: string, path: string): string | undefined {
  const places = path.split(':').map((folder) => `${folder === '' ? '.' : folder}/${file}`);
  // What is there but may not be executed is a better reason than that nothing is there.
  return places.find(isExecutable) ?? places.find((place) => existsSync(place));
}

function isExecutable(path: string): boolean {
  if (!existsSync(path)) return false; // an error costs ten times as much, and PATH has many folders
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
