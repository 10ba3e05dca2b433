import { statfs } from 'node:fs/promises';

/**
 * Why a runtime may have been unable even to say what is wrong: its log is a file in the bundle.
 * @returns undefined where there is room, or nobody knows
 */
export async function noRoomIn(folder: string): Promise<string | undefined> {
  const room = await statfs(folder).catch(() => undefined);
  if (room === undefined) return undefined;
  if (room.files > 0 && room.ffree === 0) return `no space left on device: ${folder} has no free inode`;
  if (room.blocks > 0 && room.bavail === 0) return `no space left on device: ${folder} is full`;
  return undefined;
}
