# The CUDA C++ kernels as fat binaries, where nvcc is at hand. Without them NVRTC compiles the same sources at first use.
find_program(MINIGEN_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin DOC "CUDA compiler")
set(nvcc_default OFF)
if(MINIGEN_NVCC)
  set(nvcc_default ON)
endif()
option(MINIGEN_FATBIN "Compile csrc/cuda with nvcc at build time" ${nvcc_default})
if(NOT MINIGEN_FATBIN)
  return()
endif()
if(NOT MINIGEN_NVCC)
  message(FATAL_ERROR "MINIGEN_FATBIN is ON and nvcc is not found: put it on the PATH, set CUDA_HOME or turn it OFF.")
endif()

# Machine code for every architecture that this nvcc knows of those below, and PTX of the last one for newer ones.
execute_process(COMMAND ${MINIGEN_NVCC} --list-gpu-arch OUTPUT_VARIABLE nvcc_architectures COMMAND_ERROR_IS_FATAL ANY)
set(gencode "")
foreach(architecture IN ITEMS 80 86 89 90 100 120)
  if(nvcc_architectures MATCHES "compute_${architecture}(\n|$)")
    list(APPEND gencode -gencode=arch=compute_${architecture},code=sm_${architecture})
    set(newest ${architecture})
  endif()
endforeach()
list(APPEND gencode -gencode=arch=compute_${newest},code=compute_${newest})
set(nvcc_flags -std=c++17 -fatbin -diag-suppress=1675 ${gencode})  # 1675: GCC's unroll pragma

# An nvcc that does not like this machine's C++ compiler must not stop the build: NVRTC needs neither.
set(csrc ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
set(fatbin ${CMAKE_CURRENT_BINARY_DIR}/fatbin)
file(MAKE_DIRECTORY ${fatbin})
execute_process(
  COMMAND ${MINIGEN_NVCC} -std=c++17 -fatbin -diag-suppress=1675 -o ${fatbin}/probe.fatbin ${csrc}/cuda/random.cu
  RESULT_VARIABLE nvcc_fails ERROR_VARIABLE nvcc_says OUTPUT_QUIET)
if(nvcc_fails)
  message(WARNING "nvcc does not work here, so CUDA kernels will be compiled at first use:\n${nvcc_says}")
  return()
endif()

file(GLOB headers RELATIVE ${csrc} CONFIGURE_DEPENDS ${csrc}/math/*.hpp ${csrc}/cuda/*.cuh)
file(GLOB kernels RELATIVE ${csrc} CONFIGURE_DEPENDS ${csrc}/cuda/*.cu)
list(TRANSFORM headers PREPEND ${csrc}/ OUTPUT_VARIABLE header_paths)
list(TRANSFORM kernels PREPEND ${csrc}/ OUTPUT_VARIABLE kernel_paths)
set(binaries "")
foreach(kernel IN LISTS kernels)
  get_filename_component(name ${kernel} NAME_WE)
  add_custom_command(
    OUTPUT ${fatbin}/${name}.fatbin
    COMMAND ${MINIGEN_NVCC} ${nvcc_flags} -o ${fatbin}/${name}.fatbin ${csrc}/${kernel}
    DEPENDS ${csrc}/${kernel} ${header_paths}
    VERBATIM)
  list(APPEND binaries ${fatbin}/${name}.fatbin)
endforeach()

# What they were made of: at run time a fatbin counts only while the sources beside it are these.
add_custom_command(
  OUTPUT ${fatbin}/sources.sha256
  COMMAND ${CMAKE_COMMAND} -E sha256sum ${kernels} ${headers} > ${fatbin}/sources.sha256
  WORKING_DIRECTORY ${csrc}
  DEPENDS ${kernel_paths} ${header_paths}
  VERBATIM)
add_custom_target(minigen_fatbin ALL DEPENDS ${binaries} ${fatbin}/sources.sha256)
install(FILES ${binaries} ${fatbin}/sources.sha256 DESTINATION minigen/csrc/fatbin)
