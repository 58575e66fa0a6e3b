# Copies the libraries that programs need, and a bare machine lacks, into a folder, under the names that programs ask for:
#
#   cmake -DFILES="PROGRAM;PLUGIN.so;..." -DTO=FOLDER [-DLIST=FILE] -P cmake/collect_libraries.cmake
#
# LIST gets the paths of what was copied, a line each. Libraries of libraries are found too; one that is found nowhere is an
# error. Needs objdump (binutils).
cmake_minimum_required(VERSION 3.25)
foreach(name FILES TO)
  if(NOT ${name})
    message(FATAL_ERROR "collect_libraries: -D${name}=... is missing")
  endif()
endforeach()

# What every machine has, and must have of its own: glibc, since a program's loader and its C library are one, and the
# compiler's runtime, which the driver of a GPU uses too: an older one of ours would take the place of the machine's.
set(of_the_system ld-linux.* libc libm libmvec libdl librt libpthread libresolv libutil libanl libstdc\\+\\+ libgcc_s)
# What a machine with a GPU has: the driver, which must fit its kernel, and the CUDA libraries.
set(of_nvidia libcuda libnvidia-.* libcudart libcublas libcublasLt libnccl)
list(JOIN of_the_system "|" of_the_system)
list(JOIN of_nvidia "|" of_nvidia)

set(programs)
set(modules)
foreach(file IN LISTS FILES)
  if(file MATCHES "\\.so$")
    list(APPEND modules "${file}")
  else()
    list(APPEND programs "${file}")
  endif()
endforeach()
file(GET_RUNTIME_DEPENDENCIES
  EXECUTABLES ${programs}
  MODULES ${modules}
  RESOLVED_DEPENDENCIES_VAR found
  PRE_EXCLUDE_REGEXES "^(${of_the_system}|${of_nvidia})\\.so")

file(MAKE_DIRECTORY "${TO}")
foreach(library IN LISTS found)
  get_filename_component(name "${library}" NAME)
  file(REAL_PATH "${library}" real)
  file(COPY_FILE "${real}" "${TO}/${name}")
endforeach()
if(LIST)
  list(JOIN found "\n" lines)
  file(WRITE "${LIST}" "${lines}\n")
endif()
