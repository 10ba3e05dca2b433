import { endSoleDelete, forgetSoleDelete, passSoleDelete } from '../../src/checkpoint/rewind/sole-delete.ts';
import type { TaskDefinition } from '../../src/proto/gen/containerd/task.ts';
import type { Handlers } from '../../ttrpc/index.ts';
import type { ShimContext } from '../container/context.ts';
import { AGAIN } from '../guard/messages.ts';

type Tasks = Handlers<TaskDefinition>;

/** The same handlers, where a task that is rewound is deleted once: src/checkpoint/rewind/sole-delete.ts. */
export function deletingOnce(
  tasks: Tasks,
  { paths, namespace }: Pick<ShimContext, 'paths' | 'namespace'>,
): Tasks {
  const folderOf = (id: string): string => paths.task(namespace, id);
  return {
    ...tasks,

    async create(request, call) {
      try {
        return await tasks.create(request, call);
      } catch (error) {
        forgetSoleDelete(folderOf(request.id)); // containerd deletes what may have come of it
        throw error;
      }
    },

    async start(request, call) {
      const answer = await tasks.start(request, call);
      if (request.execId === '') forgetSoleDelete(folderOf(request.id));
      return answer;
    },

    async kill(request, call) {
      if (request.execId === '') endSoleDelete(folderOf(request.id));
      return tasks.kill(request, call);
    },

    async delete(request, call) {
      const { id, execId } = request;
      const work = (): ReturnType<Tasks['delete']> => tasks.delete(request, call);
      // What an earlier worker was given, and let through.
      if (execId !== '' || call.metadata.get(AGAIN) !== undefined) return work();
      return passSoleDelete(folderOf(id), id, work);
    },
  };
}
